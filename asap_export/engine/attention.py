"""Attention nodes that TensorRT has no dedicated kernel for, found in the ONNX graph before it is parsed.

A kernel is there for float16 and bfloat16 with heads of 16 to 256 numbers, a multiple of 8; not for float32
(tried with TensorRT-RTX 1.7), and not behind a ``Loop``: past one, TensorRT plans a graph piecewise and does
not recognise attention. Such layers are marked decomposable, which lets TensorRT make products and a softmax
of them.
"""

from collections.abc import Iterator

import onnx
from onnx import TensorProto, inliner

__all__ = ["decomposed_attention", "spell_out_attention"]

_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_ATTENTION = ("", "Attention")


def decomposed_attention(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the attention nodes of ``model`` without a dedicated kernel, in the graph's order."""
    unsuited, behind_loop = set(_unsuited(model)), set(_behind_loop(model))
    return tuple(node.name for node in _attention(model) if node.name in unsuited | behind_loop)


def spell_out_attention(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """``model`` with attention in ONNX's own definition of it, or None where TensorRT takes it as it is.

    TensorRT-RTX 1.7 crashes, most times, when it decomposes attention ahead of a ``Loop``. Layers whose type or
    head size asks for it must come decomposed.
    """
    if not _looping(model) or not _unsuited(model):
        return None
    return inliner.inline_selected_functions(model, [_ATTENTION], inline_schema_functions=True)


def _attention(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    return (node for node in model.graph.node if (node.domain, node.op_type) == _ATTENTION)


def _unsuited(model: onnx.ModelProto) -> list[str]:
    """Attention nodes whose keys' type or head size has no kernel, or is unknown; keys are [B, Hkv, S, d]."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.input, *graph.output)}
    found = []
    for node in _attention(model):
        key = types[node.input[1]]
        head_size = key.shape.dim[-1].dim_value if key.shape.dim else 0
        if key.elem_type not in _HALF or head_size % 8 or not 16 <= head_size <= 256:
            found.append(node.name)
    return found


def _looping(model: onnx.ModelProto) -> set[tuple[str, str]]:
    """Operators that are loops or, as functions of the model, hold one; empty where the graph has none."""
    looping = {("", "Loop"), ("", "Scan")}
    for _ in model.functions:  # functions call one another in any order
        looping |= {
            (function.domain, function.name)
            for function in model.functions
            if any((node.domain, node.op_type) in looping for node in function.node)
        }
    return looping & {(node.domain, node.op_type) for node in model.graph.node}


def _behind_loop(model: onnx.ModelProto) -> Iterator[str]:
    """Nodes that something computed by a loop leads to; a graph's nodes are in topological order."""
    looping = _looping(model)
    reached: set[str] = set()
    for node in model.graph.node:
        if (node.domain, node.op_type) in looping or not reached.isdisjoint(node.input):
            reached.update(node.output)
            yield node.name
