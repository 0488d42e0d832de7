"""Pass: the decoder's linear layers read weights of 4 or 8 bits.

Two forms of 4 bits, one file of numbers each: ``MatMulNBits`` is ONNX Runtime's operator, ``DequantizeLinear``
before a MatMul is ONNX's own and what TensorRT keeps packed in an engine (ONNX Runtime fuses it into MatMulNBits
too). 8 bits have the second form alone.
Embeddings, norms, vision tower and projector stay as they are: together they are a few per cent of a model.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from asap_export.checkpoint.shards import TensorPlace
from asap_export.graph.codes import (
    CODES,
    FORM,
    SCALES,
    Bytes,
    Codes,
    Floats,
    Form,
    quantize_blocks,
    quantize_outputs,
    transposed,
)
from asap_export.graph.tensor_file import STORAGE, TensorFile, cast, pieces
from asap_export.spec import Quantization

__all__ = ["Linear", "linear_layers", "quantize_layers", "reason_to_stay"]

_VALUES_AT_ONCE = 1 << 24  # of which there are a float32 copy and its transpose
_CONTRIB = "com.microsoft"


@dataclass(frozen=True)
class Linear:
    """A linear layer of a traced graph: ``MatMul(x, Transpose(weight))``, weight [N, K] a graph input."""

    weight: ir.Value
    transpose: ir.Node
    products: tuple[ir.Node, ...]

    @property
    def outputs(self) -> int:
        return self._sizes[0]

    @property
    def inputs(self) -> int:
        return self._sizes[1]

    @property
    def _sizes(self) -> tuple[int, int]:
        assert self.weight.shape is not None
        outputs, inputs = self.weight.shape.numpy()
        return int(outputs), int(inputs)


def linear_layers(graph: ir.Graph, weights: Mapping[str, TensorPlace]) -> list[Linear]:
    """The linear layers whose weights are among the graph's inputs ``weights``, in the order of the graph."""
    layers = []
    for node in graph:
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is None or weight.name not in weights or len(list(weight.uses())) != 1:
            continue
        users = tuple(user for user, _ in node.outputs[0].uses())
        if users and all(user.op_type == "MatMul" and user.inputs[1] is node.outputs[0] for user in users):
            layers.append(Linear(weight, node, users))
    return layers


def reason_to_stay(layer: Linear, quantization: Quantization) -> str | None:
    """Why a layer is not quantized, or None where it is."""
    if quantization.block_size is None:
        return None
    if layer.inputs % quantization.block_size:
        return f"{layer.inputs} inputs are no multiple of the block size {quantization.block_size}"
    if layer.outputs % 2:
        return f"{layer.outputs} outputs are odd, and two codes share a byte"
    return None


def quantize_layers(
    model: ir.Model,
    layers: Mapping[str, Linear],
    sources: Mapping[str, TensorPlace],
    quantization: Quantization,
    form: Form,
    dtype: str,
    folder: Path,
    on_tensor: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write ``weights/<graph>.int4.safetensors``, or int8, into ``folder`` and let ``layers`` read it.

    layers: by the parameter's name in the model; sources: each weight's stored tensor, by its name in the graph;
    dtype: of scales and activations, "fp32", "fp16" or "bf16". One weight at a time is in memory. Raises
    UserError where a scale does not fit into the dtype.
    """
    location = f"weights/{model.graph.name}.{quantization.name}.safetensors"
    block = quantization.block_size
    parts = {name: _parts(layer, block, form, dtype) for name, layer in layers.items()}
    tensors = {name + part.suffix: (part.code, part.shape) for name in parts for part in parts[name]}
    with TensorFile(folder / location, tensors, {FORM: form}) as file:
        for number, layer in enumerate(layers.values(), start=1):
            place = sources[str(layer.weight.name)]
            codes, scales = _quantized(place, layer, block, form)
            file.append(codes)
            file.append(cast(scales, dtype, place))
            on_tensor(number, len(layers))
    for name, layer in layers.items():
        stored = []
        for part in parts[name]:
            key = name + part.suffix
            nbytes = math.prod(part.shape) * (STORAGE[dtype].numpy.itemsize if part.suffix == SCALES else 1)
            shape = ir.Shape(part.dims)
            tensor = ir.ExternalTensor(
                location, file.offsets[key], nbytes, part.onnx, shape=shape, name=key, base_dir=folder
            )
            value = ir.Value(name=key, shape=shape, type=ir.TensorType(part.onnx), const_value=tensor)
            model.graph.register_initializer(value)
            stored.append(value)
        if form == "MatMulNBits":
            _use_matmul_nbits(model.graph, layer, stored, block)
        else:
            _use_dequantized(model.graph, layer, stored, block)
        model.graph.inputs.remove(layer.weight)
    if form == "MatMulNBits" and layers:
        model.opset_imports[_CONTRIB] = 1


@dataclass(frozen=True)
class _Part:
    """Codes or scales of one weight: ``shape`` in the file, ``dims`` in the graph."""

    suffix: str
    code: str
    shape: tuple[int, ...]
    onnx: ir.DataType
    dims: tuple[int, ...]


def _parts(layer: Linear, block: int | None, form: Form, dtype: str) -> tuple[_Part, _Part]:
    outputs, inputs = layer.outputs, layer.inputs
    kind = STORAGE[dtype]
    if block is None:
        codes = _Part(CODES, "I8", (inputs, outputs), ir.DataType.INT8, (inputs, outputs))
        return codes, _Part(SCALES, kind.code, (outputs,), kind.onnx, (outputs,))
    blocks = inputs // block
    if form == "MatMulNBits":
        packed = (outputs, blocks, block // 2)
        codes = _Part(CODES, "U8", packed, ir.DataType.UINT8, packed)
        return codes, _Part(SCALES, kind.code, (outputs, blocks), kind.onnx, (outputs, blocks))
    codes = _Part(CODES, "U8", (inputs, outputs // 2), ir.DataType.INT4, (inputs, outputs))
    return codes, _Part(SCALES, kind.code, (blocks, outputs), kind.onnx, (blocks, outputs))


def _quantized(
    place: TensorPlace, layer: Linear, block: int | None, form: Form
) -> tuple[Codes | Bytes, Floats]:
    """Codes and scales of a weight [N, K] as a form reads them, a few rows at a time."""
    rows = max(1, _VALUES_AT_ONCE // layer.inputs)
    done: list[tuple[Codes | Bytes, Floats]] = []
    for piece in pieces(place, rows * layer.inputs):
        weight = piece.astype(np.float32).reshape(-1, layer.inputs)
        done.append(quantize_outputs(weight) if block is None else quantize_blocks(weight, block))
    codes, scales = (np.concatenate(each) for each in zip(*done, strict=True))
    if form == "MatMulNBits":
        return codes, scales
    return (np.ascontiguousarray(codes.T) if block is None else transposed(codes)), scales.T


def _use_matmul_nbits(graph: ir.Graph, layer: Linear, stored: list[ir.Value], block: int | None) -> None:
    sizes = {"K": layer.inputs, "N": layer.outputs, "bits": 4, "block_size": block}
    for product in layer.products:
        node = ir.node(
            "MatMulNBits",
            [product.inputs[0], *stored],
            attributes=sizes,
            domain=_CONTRIB,
            name=product.name,
        )
        _take_place(graph, product, node)
    graph.remove(layer.transpose, safe=True)


def _use_dequantized(graph: ir.Graph, layer: Linear, stored: list[ir.Value], block: int | None) -> None:
    along = {"axis": 1} if block is None else {"axis": 0, "block_size": block}
    node = ir.node("DequantizeLinear", stored, attributes=along, name=layer.transpose.name)
    _take_place(graph, layer.transpose, node)


def _take_place(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Put a node of one output where another was; the output keeps its name, shape and type."""
    was, becomes = old.outputs[0], new.outputs[0]
    becomes.name, becomes.shape, becomes.type = was.name, was.shape, was.type
    graph.insert_before(old, new)
    ir.convenience.replace_all_uses_with(was, becomes, replace_graph_outputs=True)
    graph.remove(old, safe=True)
