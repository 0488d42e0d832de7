"""Pass: the decoder of the same model with more layers, its last one once more for each.

Tracing takes nearly all the time of an export, and layers behind the cut are alike but for their weights. So a
decoder is traced with as few as show all that there is to see, and the others are copies of the last.
"""

import re
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common
from torch import nn

from asap_export.pruning.config import PruningConfig

__all__ = ["layers_to_trace", "repeat_last_layer"]

_PAST = "past_key_values."
_OF_LAYER = re.compile(r"((?:^|\.)language_model\.layers\.|^past_key_values\.|^present\.)(\d+)(\.)")
_SIMPLE = (bool, int, float, str, type(None))


def layers_to_trace(layers: nn.ModuleList, pruning: PruningConfig) -> int:
    """Those up to the cut and two behind it, where all behind that are alike; else all."""
    enough = (pruning.prune_after if pruning.prunes else 0) + 2
    alike = all(_settings(layer) == _settings(layers[enough - 1]) for layer in layers[enough:])
    return enough if alike and enough < len(layers) else len(layers)


def _settings(layer: nn.Module) -> list[Any]:
    """All that a layer's computation depends on, but for the values of its weights."""
    found: list[Any] = []
    for name, module in layer.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, _SIMPLE)}
        plain.pop("layer_idx", None)
        shapes = [(key, tuple(value.shape)) for key, value in module.named_parameters(recurse=False)]
        found.append((name, type(module), plain, shapes))
    return found


def repeat_last_layer(model: ir.Model, layers: int) -> None:
    """Make a traced ``decoder.onnx``, whose weights are inputs still, one of ``layers`` layers."""
    graph = model.graph
    layer = _Layer(graph)
    if layer.number == layers - 1:
        return
    behind = list(layer.leaving.uses())
    hidden = layer.leaving
    for number in range(layer.number + 1, layers):
        hidden = layer.copy(number, hidden)
    for use in behind:
        use.node.replace_input_with(use.idx, hidden)
    graph.sort()
    common.NameFixPass()(model)


class _Layer:
    """The last layer of a graph: its nodes, in order, between the states that enter and those that leave."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        inputs = {str(value.name): value for value in graph.inputs}
        self.number = max(number for name in inputs if (number := _number(name)) is not None)
        own = {name: value for name, value in inputs.items() if _number(name) == self.number}
        self._caches = [value for name, value in own.items() if name.startswith(_PAST)]
        self._weights = [value for name, value in own.items() if not name.startswith(_PAST)]
        _ask_another_for_lengths(self._caches, self.number, inputs)
        self._entering = _normalized(own, ".input_layernorm.weight")
        last_position = _normalized(inputs, ".language_model.norm.weight").producer()
        assert last_position is not None and last_position.op_type == "Slice"
        leaving = last_position.inputs[0]
        assert leaving is not None
        self.leaving: ir.Value = leaving
        reached = set(self._reached())
        self.nodes = [node for node in graph if node in reached]
        self._presents = [value for value in graph.outputs if _number(str(value.name)) == self.number]

    def copy(self, number: int, entering: ir.Value) -> ir.Value:
        """Add the layer once more, with the weights and caches of that number; what leaves it."""
        twins = {self._entering: entering}
        for value in (*self._caches, *self._weights):
            twins[value] = _like(value, _renumbered(value, number))
        place = 1 + max(
            at for at, value in enumerate(self._graph.inputs) if str(value.name).startswith(_PAST)
        )
        self._graph.inputs[place:place] = [twins[value] for value in self._caches]
        self._graph.inputs.extend(twins[value] for value in self._weights)
        for node in self.nodes:
            twin = ir.Node(
                node.domain,
                node.op_type,
                [value and twins.get(value, value) for value in node.inputs],
                node.attributes.values(),
                overload=node.overload,
                outputs=[_like(value, f"{value.name}.{number}") for value in node.outputs],
                version=node.version,
                name=f"{node.name}.{number}",
            )
            self._graph.append(twin)
            twins.update(zip(node.outputs, twin.outputs, strict=True))
        for value in self._presents:
            twins[value].name = _renumbered(value, number)
            self._graph.outputs.append(twins[value])
        return twins[self.leaving]

    def _reached(self) -> Iterator[ir.Node]:
        """What is computed from the layer's states, weights and caches, up to the states that leave."""
        values, seen = [self._entering, *self._caches, *self._weights], set[ir.Node]()
        while values:
            value = values.pop()
            if value is self.leaving:
                continue
            for node in value.consumers():
                if node not in seen:
                    seen.add(node)
                    values.extend(node.outputs)
                    yield node


def _ask_another_for_lengths(caches: list[ir.Value], number: int, inputs: dict[str, ir.Value]) -> None:
    """What the graph asks these caches for is no part of their layer: those of the layer before are as long."""
    for value in caches:
        earlier = inputs[_renumbered(value, number - 1)]
        for use in [use for use in value.uses() if use.node.op_type == "Shape"]:
            use.node.replace_input_with(use.idx, earlier)


def _number(name: str) -> int | None:
    """Of the layer whose weight or cache bears that name."""
    found = _OF_LAYER.search(name)
    return int(found[2]) if found else None


def _renumbered(value: ir.Value, number: int) -> str:
    return _OF_LAYER.sub(rf"\g<1>{number}\3", str(value.name), count=1)


def _normalized(inputs: dict[str, ir.Value], weight: str) -> ir.Value:
    """What the norm is given whose weight's name ends so."""
    (value,) = (value for name, value in inputs.items() if f".{name}".endswith(weight))
    (norm,) = value.consumers()
    states = norm.inputs[0]
    assert states is not None
    return states


def _like(value: ir.Value, name: str) -> ir.Value:
    return ir.Value(name=name, shape=value.shape, type=value.type, doc_string=value.doc_string)
