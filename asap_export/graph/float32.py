"""Pass: a bfloat16 graph with every type widened to float32.

ONNX Runtime's CPU provider has no bfloat16 kernels, so such a graph cannot be checked there as it is. Its copy
has the same nodes and the same (already rounded) weights, and shows whether the graph is right.
"""

import shutil
from pathlib import Path

import onnx
import onnx_ir as ir

from asap_export.checkpoint.shards import TensorPlace
from asap_export.graph.weights import place_weights

__all__ = ["write_float32_copy"]


def write_float32_copy(graph: onnx.ModelProto, weights: Path, folder: Path) -> None:
    """Write the float32 copy of a bfloat16 graph, whose weights lie in the folder ``weights``, into ``folder``,
    weights beside it."""
    model = ir.from_proto(graph)
    places, codes = {}, set()
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.dtype != ir.DataType.BFLOAT16:
            codes.add(str(tensor.location))  # codes stay what they are; their scales are widened
        elif isinstance(tensor, ir.ExternalTensor):
            places[name] = _place(tensor, weights)
            del model.graph.initializers[name]
            model.graph.inputs.append(value)
            value.const_value = None
        elif tensor is not None and tensor.dtype == ir.DataType.BFLOAT16:
            value.const_value = ir.tensor(tensor.numpy().astype("float32"), name=name)
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        _widen(value)
    for node in model.graph:
        for value in node.outputs:
            _widen(value)
        if node.op_type == "Cast" and node.attributes.get_int("to") == ir.DataType.BFLOAT16:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
    place_weights(model, places, "fp32", folder, link=_never)
    for location in codes:
        _link_or_copy(weights / location, folder / location)
    ir.save(model, folder / f"{model.graph.name}.onnx")


def _widen(value: ir.Value) -> None:
    if value.dtype == ir.DataType.BFLOAT16:
        value.dtype = ir.DataType.FLOAT


def _place(tensor: ir.ExternalTensor, folder: Path) -> TensorPlace:
    shape = tuple(int(size) for size in tensor.shape.numpy())
    offset, length = tensor.offset or 0, tensor.length or 0
    return TensorPlace(folder / tensor.location, str(tensor.name), offset, length, "bf16", shape)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _never(source: Path, relative: str) -> None:
    raise RuntimeError(f"a float32 copy links nothing, asked to link {source} as {relative}")
