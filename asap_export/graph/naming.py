"""Pass: inputs, outputs and dimensions bear the plan's names.

The exporter numbers its values (``arguments_3_0_1``) and the dimensions it found out by itself (``s85``, ``u4``);
a user of the graph reads names.
"""

import re
from collections.abc import Iterator

import onnx_ir as ir

from asap_export.graph.trace import GraphPlan, planned_inputs

__all__ = ["name_values"]

# The order in which a reader meets the decoder's inputs; caches come last, layer by layer.
_FIRST = (
    "inputs_embeds",
    "attention_mask",
    "early_attention_mask",
    "position_ids",
    "visual_mask",
    "kept_length",
)


def name_values(model: ir.Model, plan: GraphPlan) -> None:
    """Rename inputs, outputs and dimensions of a traced graph after its plan, and order its inputs."""
    graph = model.graph
    planned = planned_inputs(plan)
    meaning: dict[str, str] = {}
    for value, entry in zip(graph.inputs, planned, strict=False):  # weights follow
        value.name = entry.name
        _learn(meaning, value, entry.dims)
    for value, (name, dims) in zip(graph.outputs, plan.outputs.items(), strict=True):
        value.name = name
        _learn(meaning, value, {axis: dim for axis, dim in enumerate(dims) if isinstance(dim, str)})
    for value in _values(graph):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, meaning) for dim in value.shape])
    for value, dims in zip(graph.outputs, plan.outputs.values(), strict=True):
        value.shape = ir.Shape(dims)
    order = {name: place for place, name in enumerate(_FIRST)}
    inputs, weights = graph.inputs[: len(planned)], graph.inputs[len(planned) :]
    inputs = sorted(inputs, key=lambda value: order.get(str(value.name), len(order)))
    graph.inputs.clear()
    graph.inputs.extend((*inputs, *weights))


def _learn(meaning: dict[str, str], value: ir.Value, names: dict[int, str]) -> None:
    """Note which of the exporter's symbols stand for which names."""
    assert value.shape is not None
    for axis, name in names.items():
        symbol = str(value.shape[axis])
        if symbol.isidentifier():
            meaning.setdefault(symbol, name)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _renamed(dim: int | ir.SymbolicDim, meaning: dict[str, str]) -> int | str | None:
    """A dimension in the plan's words, or None where a symbol in it has no name."""
    if isinstance(dim, int) or dim.value is None:
        return dim if isinstance(dim, int) else None
    words = re.sub(r"[A-Za-z_]\w*", lambda found: meaning.get(found[0], found[0]), str(dim.value))
    unknown = set(re.findall(r"[A-Za-z_]\w*", words)) - set(meaning.values())
    return None if unknown else words
