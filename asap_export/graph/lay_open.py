"""Pass: a decoder that tells what happens in its cut. All it computes, it computes as before.

Every input and output of the pruning nodes becomes an output of the graph, and so does the mask that each layer
attends under. So a kept set can be replayed from the numbers that it came from.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from asap_export.graph.cpu.functions import CPU_DOMAIN
from asap_export.graph.operators import DOMAIN

__all__ = ["Opened", "OpenedNode", "lay_open"]

# What a node is given and gives, in its order; "-" is not looked at. Where one stands in another's place in the
# decoder for the CPU, what is the same bears the same name.
_PRUNING = {
    "AsapMask": ("query key visual_mask attention_mask", "bias mass salience"),
    "AsapScore": ("query key bias row_weight", "score"),
    "AsapTopK": ("score visual_mask attention_mask kept_length", "index"),
    "AsapMerge": ("hidden index visual_mask salience mass", "merged kept_index absorbed"),
    "SoftMaskedAttention": (
        "query key value - - visual_mask attention_mask plain - last total -",
        "output - - mass salience",
    ),
    "LastRowBias": ("attention_mask - row", "bias"),
    "LastRowScore": ("query key bias row_weight", "score"),
    "ScoreInBlocks": ("query key visual_mask attention_mask row_weight plain", "score"),
}
_ATTENTION = {
    "Attention": "- - - mask",
    "CausalAttention": "- - - - - plain - last total mask",
    "SoftMaskedAttention": "- - - - - - - plain - last total mask",
}
_MODEL_TYPED = {"query", "key", "value", "hidden", "merged", "output"}
_HALVES = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
_KINDS = {  # of what an If's branch tells, by name; all others are float32
    "index": ir.DataType.INT64, "kept_index": ir.DataType.INT64, "kept_length": ir.DataType.INT64,
    "row": ir.DataType.INT64, "last": ir.DataType.INT32, "total": ir.DataType.INT32,
    "plain": ir.DataType.BOOL, "visual_mask": ir.DataType.BOOL, "attention_mask": ir.DataType.BOOL,
    "absorbed": ir.DataType.BOOL, "mask": ir.DataType.BOOL, "cuts": ir.DataType.BOOL,
}  # fmt: skip
_PAST = re.compile(r"past_key_values\.(\d+)\.key")


@dataclass(frozen=True)
class OpenedNode:
    """A node, the numbers among its attributes, and under which names of the graph's inputs and outputs its own
    are found; ``layer``: whose cache an attention reads, None where that is no layer's."""

    kind: str
    attributes: Mapping[str, float]
    places: Mapping[str, str]
    layer: int | None = None

    def values(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The node's inputs and outputs, from all inputs and outputs of a run."""
        return {name: arrays[place] for name, place in self.places.items()}


@dataclass(frozen=True)
class Opened:
    """The pruning nodes in their order, and the attention layers in theirs; ``outputs`` are those that were added;
    ``cuts``: where a run says whether its pruning nodes ran, None where they always do."""

    pruning: tuple[OpenedNode, ...]
    attention: tuple[OpenedNode, ...]
    outputs: tuple[str, ...]
    cuts: str | None


def lay_open(model: ir.Model) -> Opened:
    """Add the outputs to a decoder, in any of its forms. 16-bit floats become float32, as nodes widen them."""
    opener = _Opener(model.graph)
    pruning = [
        opener.node(node, " -> ".join(_PRUNING[node.op_type]), branch)
        for node, branch in _nodes(model.graph)
        if node.op_type in _PRUNING and node.domain in (DOMAIN, CPU_DOMAIN)
    ]
    attention = [
        opener.node(node, _ATTENTION[node.op_type]) for node in model.graph if node.op_type in _ATTENTION
    ]
    choice = next((node for node in model.graph if node.op_type == "If"), None)
    cuts = opener.place("cuts", choice.inputs[0], None) if choice is not None else None
    return Opened(tuple(pruning), tuple(attention), tuple(opener.added), cuts)


@dataclass(frozen=True)
class _Branch:
    """One of an If's two graphs; the other one gives nothing where this one tells."""

    choice: ir.Node
    graph: ir.Graph
    other: ir.Graph


def _nodes(graph: ir.Graph) -> Iterator[tuple[ir.Node, _Branch | None]]:
    for node in list(graph):
        yield node, None
        branches = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
        if node.op_type == "If":
            for inside, other in (branches, branches[::-1]):
                for inner in list(inside):
                    yield inner, _Branch(node, inside, other)


class _Opener:
    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._inputs = {value.name for value in graph.inputs}
        self._places: dict[ir.Value, str] = {}
        self.added: list[str] = []

    def node(self, node: ir.Node, ports: str, branch: _Branch | None = None) -> OpenedNode:
        given, _, gives = ports.partition(" -> ")
        named = [
            *zip(given.split(), node.inputs, strict=False),
            *zip(gives.split(), node.outputs, strict=False),
        ]
        places = {
            name: self.place(name, value, branch)
            for name, value in named
            if name != "-" and value is not None
        }
        numbers = {
            name: float(attribute.value)
            for name, attribute in node.attributes.items()
            if attribute.type in (ir.AttributeType.FLOAT, ir.AttributeType.INT)
        }
        return OpenedNode(node.op_type, numbers, places, _layer(node))

    def place(self, name: str, value: ir.Value | None, branch: _Branch | None) -> str:
        """Where a run tells a value: among its inputs, or as a new output."""
        assert value is not None
        if value.name in self._inputs and value.producer() is None:
            return str(value.name)
        if value not in self._places:
            inside = branch is not None and value.producer() in set(branch.graph)
            told = self._told(name, value)
            told.outputs[0].name = f"opened.{len(self.added)}.{name}"
            if inside:
                assert branch is not None
                output = self._out_of(branch, told, _KINDS.get(name, ir.DataType.FLOAT))
            else:
                self._graph.append(told)
                output = told.outputs[0]
            self._graph.outputs.append(output)
            self.added.append(str(output.name))
            self._places[value] = str(output.name)
        return self._places[value]

    def _told(self, name: str, value: ir.Value) -> ir.Node:
        """A value once more, wide enough for NumPy; its type is left to the runtime, as a pass may not have noted
        it."""
        wide = value.dtype in _HALVES or (value.dtype is None and name in _MODEL_TYPED)
        if wide:
            return ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT})
        return ir.node("Identity", [value])

    def _out_of(self, branch: _Branch, told: ir.Node, kind: ir.DataType) -> ir.Value:
        """An output of the If: what its branch tells, or nothing from the other one."""
        branch.graph.append(told)
        branch.graph.outputs.append(told.outputs[0])
        name = str(told.outputs[0].name)
        empty = ir.node("Constant", [], attributes={"value": ir.tensor([], dtype=kind, name=f"{name}.empty")})
        empty.outputs[0].name = f"{name}.none"
        branch.other.append(empty)
        branch.other.outputs.append(empty.outputs[0])
        branch.choice.resize_outputs(len(branch.choice.outputs) + 1)
        output = branch.choice.outputs[-1]
        output.name = f"{name}.told"
        return output


def _layer(attention: ir.Node) -> int | None:
    """The layer whose cached keys an attention is given, by itself or behind a Concat."""
    for value in attention.inputs:
        producer = value.producer() if value is not None else None
        source = producer.inputs[0] if producer is not None and producer.op_type == "Concat" else value
        if source is not None and (found := _PAST.fullmatch(str(source.name))):
            return int(found[1])
    return None
