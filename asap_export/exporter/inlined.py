"""The decoder once more, without functions of its own: for runtimes that expand none, such as OpenVINO.

Where tokens are pruned it is two graphs, cut where the method cuts, as engines are. The caches of the second one
only grow, so a runtime can keep them inside. And OpenVINO computes everything in float32 that rotary angles depend
on, which behind the cut is all that is before it: in two graphs it sees no dependence. Before the cut, too, caches
only grow in steps, for which there is a graph of its own.
"""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnx.inliner import inline_local_functions

from asap_export.bundle import INLINED_PARTS, INLINED_STEP, INLINED_WHOLE
from asap_export.engine.split import split_decoder
from asap_export.graph.cpu.cut import leave_cut_out
from asap_export.graph.cpu.functions import complete
from asap_export.graph.cuda import lower_for_cuda
from asap_export.pruning.config import PruningConfig

__all__ = ["write_inlined_decoder"]


def write_inlined_decoder(folder: Path, pruning: PruningConfig) -> None:
    """Make the inlined decoder of ``decoder.onnx`` in ``folder``, whose weights it reads."""
    whole = onnx.load(folder / "decoder.onnx", load_external_data=False)
    if pruning.prunes:
        early, late = split_decoder(whole, [0, pruning.prune_after])
        models = dict(zip(INLINED_PARTS, (_skipping_the_cut(early), late), strict=True))
        models[INLINED_STEP] = _without_the_cut(early)
    else:
        models = {INLINED_WHOLE: whole}
    for file, model in models.items():
        inlined = inline_local_functions(model)
        if file != INLINED_PARTS[0]:  # its caches do not stay inside
            _add_masks(inlined)
        _check(inlined)
        onnx.save(inlined, folder / file)


def _check(model: onnx.ModelProto) -> None:
    """onnx's check, without the weights: it takes no files with several links."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for weight in model.graph.initializer:
        if weight.data_location == onnx.TensorProto.EXTERNAL:
            bare.graph.initializer.remove(weight)
            bare.graph.input.append(helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    onnx.checker.check_model(bare)


def _skipping_the_cut(part: onnx.ModelProto) -> onnx.ModelProto:
    """A part in which nothing of the cut runs where nothing is cut, as in steps."""
    model = ir.from_proto(part)
    lower_for_cuda(model)
    return ir.to_proto(model)


def _without_the_cut(part: onnx.ModelProto) -> onnx.ModelProto:
    """A part that takes steps alone."""
    model = ir.from_proto(part)
    leave_cut_out(model.graph)
    complete(model)
    return ir.to_proto(model)


def _add_masks(model: onnx.ModelProto) -> None:
    """Masks that say True or False become numbers to add to scores: with caches inside, OpenVINO's attention takes
    much longer with the former.

    Hidden places get half of the lowest number: a score may be added to it, and a row in which all is hidden,
    which nobody reads, is no NaN.
    """
    graph = model.graph
    dtype = helper.tensor_dtype_to_np_dtype(graph.input[-1].type.tensor_type.elem_type)  # of a cache
    lowest = float(ml_dtypes.finfo(dtype).min)  # type: ignore[no-untyped-call]
    constants = {"shown.score": np.zeros((), dtype), "hidden.score": np.array(lowest / 2, dtype)}
    known = onnx.shape_inference.infer_shapes(model).graph
    typed = (*known.value_info, *known.input)
    truths = {value.name for value in typed if value.type.tensor_type.elem_type == onnx.TensorProto.BOOL}
    added: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        mask = node.input[3] if node.op_type == "Attention" and len(node.input) > 3 else ""
        if mask in truths:
            if mask not in added:
                added[mask] = f"{mask}.score"
                nodes.append(helper.make_node("Where", [mask, *constants], [added[mask]]))
            node.input[3] = added[mask]
        nodes.append(node)
    if added:
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
        del graph.node[:]
        graph.node.extend(nodes)
