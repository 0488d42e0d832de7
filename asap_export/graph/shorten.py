"""Pass: the decoder of the same model with fewer layers; what it leaves out, weights included, is never read.

The rest is as it was: the layers before, the pruning among them, the final norm and the head. So a model larger
than memory can be looked into from the front.
"""

import re

import onnx_ir as ir
from onnx_ir.passes import common

__all__ = ["keep_first_layers"]

_CACHE = re.compile(r"(?:past_key_values|present)\.(\d+)\.(?:key|value)")


def keep_first_layers(model: ir.Model, layers: int) -> None:
    """Make ``decoder.onnx`` the decoder of a model with its first ``layers`` layers, one behind the cut at least.

    Raises ValueError where the graph is none of ours: no norm in front of a layer, or no last position before
    the final norm.
    """
    graph = model.graph
    total = len({number for value in graph.inputs if (number := _layer_of(value)) is not None})
    if not 0 < layers <= total:
        raise ValueError(f"expected between 1 and {total} layers, found {layers}")
    if layers == total:
        return
    entering = _norm(graph, f".layers.{layers}.input_layernorm.weight").inputs[0]
    final_norm = _norm(graph, ".language_model.norm.weight").inputs[0]
    last_position = final_norm.producer() if final_norm is not None else None
    if entering is None or last_position is None or last_position.op_type != "Slice":
        raise ValueError("expected the last position of the last layer's output before the final norm")
    last_position.replace_input_with(0, entering)
    _forget_caches(graph, layers)
    ir.passes.Sequential(common.RemoveUnusedNodesPass(), common.RemoveUnusedFunctionsPass())(model)  # type: ignore[no-untyped-call]


def _norm(graph: ir.Graph, weight: str) -> ir.Node:
    """The norm that is given the weight whose name ends so."""
    for name, value in graph.initializers.items():
        if f".{name}".endswith(weight):
            (node,) = value.consumers()
            return node
    raise ValueError(f"expected a decoder with a weight *{weight}")


def _forget_caches(graph: ir.Graph, layers: int) -> None:
    """Drop the later layers' caches. Their length, which the graph may have asked one of them for, is that of
    every layer behind the cut, so of the last that stays."""
    outputs = [value for value in graph.outputs if (_layer_of(value) or 0) < layers]
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    inputs = {value.name: value for value in graph.inputs}
    for name, value in inputs.items():
        number = _layer_of(value)
        if number is not None and number >= layers:
            kept = inputs[str(name).replace(f".{number}.", f".{layers - 1}.")]
            ir.convenience.replace_all_uses_with(value, kept)
            graph.inputs.remove(value)


def _layer_of(value: ir.Value) -> int | None:
    found = _CACHE.fullmatch(str(value.name))
    return int(found[1]) if found else None
