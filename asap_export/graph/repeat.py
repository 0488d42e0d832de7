"""Pass: a graph of the same model with more layers, its last one once more for each.

Tracing takes nearly all the time of an export, and layers of a stack are alike but for their weights. So a stack
is traced with as few as show all that there is to see, and the others are copies of the last.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common
from torch import nn

__all__ = ["DECODER", "TOWER", "Stack", "layers_to_trace", "repeat_last_layer"]

_ALIKE = 2  # traced layers: one shows what is handed from one to the next
_PAST, _PRESENT = "past_key_values", "present"
_SIMPLE = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Stack:
    """Layers in a row: what their parameters' names begin with, and the norm that the states enter by."""

    layers: str
    norm: str


DECODER, TOWER = Stack("language_model.layers", "input_layernorm"), Stack("encoder.layers", "layer_norm1")


def layers_to_trace(stack: Stack, layers: nn.ModuleList, different: int = 0) -> int:
    """The first ones, that are ``different``, and two more, where all behind those are alike; else all."""
    enough = different + _ALIKE
    if len(layers) <= enough or not hasattr(layers[-1], stack.norm):
        return len(layers)
    first, *others = (_settings(layer) for layer in layers[enough - 1 :])
    return enough if all(other == first for other in others) else len(layers)


def _settings(layer: nn.Module) -> list[Any]:
    """All that a layer's computation depends on, but for the values of its weights."""
    found: list[Any] = []
    for name, module in layer.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, _SIMPLE)}
        plain.pop("layer_idx", None)
        shapes = [(key, tuple(value.shape)) for key, value in module.named_parameters(recurse=False)]
        found.append((name, type(module), plain, shapes))
    return found


def repeat_last_layer(model: ir.Model, stack: Stack, layers: int) -> bool:
    """Make a traced graph, whose weights are inputs still, one whose stack has so many layers.

    False where the last two are not computed alike, and the graph stays as it is.
    """
    graph = model.graph
    weights = (re.search(rf"\b{re.escape(stack.layers)}\.(\d+)\.", str(value.name)) for value in graph.inputs)
    last = max((int(found[1]) for found in weights if found), default=-1)
    if last == layers - 1:
        return True
    before, layer = _Layer(graph, stack, last - 1), _Layer(graph, stack, last)
    form = before.form(layer.entering)  # what leaves a layer is what enters the next
    leaving = next((value for value in layer.computed() if layer.form(value) == form), None)
    if leaving is None:
        return False
    behind, hidden = list(leaving.uses()), leaving
    for number in range(last + 1, layers):
        hidden = layer.copy(number, leaving, hidden)
    for use in behind:
        use.node.replace_input_with(use.idx, hidden)
    graph.sort()
    common.NameFixPass()(model)
    return True


class _Layer:
    """A layer in a graph: what is computed from the states that enter it, its weights and its caches."""

    def __init__(self, graph: ir.Graph, stack: Stack, number: int) -> None:
        self._graph, self._number = graph, number
        self._name = re.compile(rf"((?:^|\.){re.escape(stack.layers)}\.|^{_PAST}\.|^{_PRESENT}\.){number}\.")
        self._inputs = self._own(graph.inputs)
        (norm,) = (value for value in self._inputs if str(value.name).endswith(f".{stack.norm}.weight"))
        (normalized,) = norm.consumers()
        entering = normalized.inputs[0]
        assert entering is not None
        self.entering: ir.Value = entering
        self._reached = set(_reached([entering, *self._inputs]))
        self._forms: dict[ir.Value, Any] = {}

    def computed(self) -> Iterator[ir.Value]:
        """From what enters, of this layer or behind it."""
        return (value for node in self._graph if node in self._reached for value in node.outputs)

    def form(self, value: ir.Value) -> Any:
        """How a value is computed: equal for two layers whose values are computed alike."""
        if value not in self._forms:
            self._forms[value] = self._form(value)
        return self._forms[value]

    def _form(self, value: ir.Value) -> Any:
        node = value.producer()
        if value is self.entering:
            return "entering"
        if value in self._inputs:
            return self._renamed(value, "*")
        if node is None or node not in self._reached:
            return id(value)
        attributes = sorted((name, str(attribute.value)) for name, attribute in node.attributes.items())
        inputs = tuple(source and self.form(source) for source in node.inputs)
        return hash((node.domain, node.op_type, tuple(attributes), node.outputs.index(value), inputs))

    def copy(self, number: int, leaving: ir.Value, entering: ir.Value) -> ir.Value:
        """Add the layer once more, with the weights and caches of that number; what leaves it."""
        twins = {self.entering: entering}
        for value in self._inputs:
            twins[value] = _like(value, self._renamed(value, number))
        self._place([twins[value] for value in self._inputs])
        presents = self._own(self._graph.outputs)
        for node in self._nodes([leaving, *presents]):
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
        for value in presents:
            twins[value].name = self._renamed(value, number)
            self._graph.outputs.append(twins[value])
        return twins[leaving]

    def _place(self, inputs: list[ir.Value]) -> None:
        """Caches behind those that there are, weights at the end."""
        there = [place for place, value in enumerate(self._graph.inputs, 1) if _is_cache(value)]
        end = there[-1] if there else 0
        self._graph.inputs[end:end] = [value for value in inputs if _is_cache(value)]
        self._graph.inputs.extend(value for value in inputs if not _is_cache(value))

    def _nodes(self, outputs: list[ir.Value]) -> list[ir.Node]:
        """Those between what enters and what leaves, in order."""
        wanted, values = set[ir.Node](), list(outputs)
        while values:
            node = values.pop().producer()
            if node is not None and node in self._reached and node not in wanted:
                wanted.add(node)
                values.extend(value for value in node.inputs if value not in (None, self.entering))
        return [node for node in self._graph if node in wanted]

    def _own(self, values: Iterable[ir.Value]) -> list[ir.Value]:
        return [value for value in values if self._name.search(str(value.name))]

    def _renamed(self, value: ir.Value, number: int | str) -> str:
        """The name of another layer's same weight or cache."""
        return self._name.sub(rf"\g<1>{number}.", str(value.name), count=1)


def _reached(values: list[ir.Value]) -> Iterator[ir.Node]:
    """All that is computed from the values, but for lengths, which are the same in all layers."""
    seen = set[ir.Node]()
    while values:
        for node in values.pop().consumers():
            if node not in seen and node.op_type != "Shape":
                seen.add(node)
                values.extend(node.outputs)
                yield node


def _is_cache(value: ir.Value) -> bool:
    return str(value.name).startswith(f"{_PAST}.")


def _like(value: ir.Value, name: str) -> ir.Value:
    return ir.Value(name=name, shape=value.shape, type=value.type, doc_string=value.doc_string)
