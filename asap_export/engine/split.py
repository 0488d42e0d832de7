"""The decoder's graph, cut between layers into parts that run one after the other.

A part takes what earlier parts give, under names that say what it is: ``hidden_states.{i}``, which layer i takes;
``kept_index``; and, where a layer is trimmed by a cut that lies in a later part, its caches ``untrimmed.{i}.*``.
Masks and rotary angles do not cross: they follow from small integers, and every part works out its own. So a
part behind the cut knows nothing of the pruning but the tokens that are left.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import NodeProto, ValueInfoProto, helper

__all__ = ["split_decoder"]

_LAYER = re.compile(r"\.layers\.(\d+)\.")
_FIRST_NORM = re.compile(r"\.layers\.(\d+)\.input_layernorm\.weight$")
_CACHE = re.compile(r"^past_key_values\.(\d+)\.(key|value)$")
_KEPT = "kept_index"


def split_decoder(model: onnx.ModelProto, firsts: Sequence[int]) -> tuple[onnx.ModelProto, ...]:
    """The parts of a decoder in the order in which they run; each begins with one of the layers ``firsts``.

    ``model`` is loaded without external data, and so are the parts: they must be saved beside it. Outputs of the
    parts together are the decoder's, and what crosses.
    """
    count = len(firsts)
    whole = _Decoder(model, firsts)
    wanted: list[list[str]] = [[] for _ in range(count)]  # outputs of each part
    for output in model.graph.output:
        wanted[whole.part_of(output.name)].append(output.name)
    drafts: list[_Draft] = []
    for number in reversed(range(count)):  # what a later part takes, an earlier one must give
        draft = whole.draft(number, wanted[number])
        for name in draft.taken:
            giver = wanted[whole.part_of(name)]
            if name not in giver:
                giver.append(name)
        drafts.append(draft)
    return tuple(
        whole.written(draft, wanted[number], f"part {number + 1} of {count}")
        for number, draft in enumerate(reversed(drafts))
    )


@dataclass
class _Draft:
    """Nodes of a part, the values it takes from earlier parts, and for dimensions their stand-ins."""

    number: int
    nodes: set[int] = field(default_factory=set)
    inputs: set[str] = field(default_factory=set)  # of the whole graph
    taken: set[str] = field(default_factory=set)
    dimensions: set[int] = field(default_factory=set)  # Shape nodes that ask for the size of one dimension


class _Decoder:
    """Which part each value of the whole graph belongs to.

    A node belongs where its weights or its latest input do. One that descends from no weight is *free*: every
    part that needs it computes it anew. ``kept_index`` counts as free once it is known.
    """

    def __init__(self, model: onnx.ModelProto, firsts: Sequence[int]) -> None:
        self.model, self.graph = model, model.graph
        self.firsts = firsts
        self.inputs = {value.name: value for value in self.graph.input}
        self.weights = {weight.name: weight for weight in self.graph.initializer}
        known = (*self.graph.value_info, *self.graph.input, *self.graph.output)
        self.types: dict[str, ValueInfoProto] = {value.name: value for value in known}
        self.producer = {name: place for place, node in enumerate(self.graph.node) for name in node.output}
        self.earliest: list[int] = []  # for each node the first part that could compute it
        self.free: list[bool] = []
        for node in self.graph.node:
            makers = [(name, self.producer[name]) for name in node.input if name in self.producer]
            parts = [self._part(int(layer[1])) for name in node.input if (layer := _LAYER.search(name))]
            weightless = not parts and all(name == _KEPT or self.free[place] for name, place in makers)
            self.free.append(weightless or self._dimension(node) is not None)
            self.earliest.append(max((*parts, *(self.earliest[place] for _, place in makers)), default=0))
        fixed = {value.name: value.name for value in (*self.graph.input, *self.graph.output)}
        self.titles = dict(self._titles()) | fixed

    def _part(self, layer: int) -> int:
        return bisect_right(self.firsts, layer) - 1

    def part_of(self, name: str) -> int:
        """The part that computes a value; the first that can where any could."""
        return self.earliest[self.producer[name]]

    def _titles(self) -> Iterator[tuple[str, str]]:
        """Names that values bear where they cross."""
        for node in self.graph.node:
            for name in node.input:
                if norm := _FIRST_NORM.search(name):
                    yield node.input[0], f"hidden_states.{norm[1]}"
                if node.op_type == "Concat" and (cache := _CACHE.match(name)):
                    yield node.output[0], f"untrimmed.{cache[1]}.{cache[2]}"

    def _dimension(self, node: NodeProto) -> str | None:
        """The name of the dimension whose size a Shape node asks for; None for other nodes."""
        if node.op_type != "Shape" or node.input[0] not in self.types:
            return None
        bounds = {each.name: each.i for each in node.attribute}
        dims = self.types[node.input[0]].type.tensor_type.shape.dim[
            bounds.get("start", 0) : bounds.get("end")
        ]
        return dims[0].dim_param if len(dims) == 1 and dims[0].dim_param.isidentifier() else None

    def draft(self, number: int, wanted: list[str]) -> _Draft:
        """Everything that part ``number`` needs for the values ``wanted``."""
        draft = _Draft(number)
        pending = list(wanted)
        while pending:
            name = pending.pop()
            if name in self.inputs:
                draft.inputs.add(name)
            if name not in self.producer:
                continue
            place = self.producer[name]
            node = self.graph.node[place]
            if self._foreign(name, number) and name in self.titles:
                draft.taken.add(name)
            elif place in draft.nodes | draft.dimensions:
                continue
            elif self._dimension(node) and self._foreign(node.input[0], number):
                draft.dimensions.add(place)
            elif self._foreign(name, number) and any(map(_LAYER.search, node.input)):
                raise RuntimeError(
                    f"part {number} of the decoder needs {name}, which has no name to cross by"
                )
            else:  # its own, free, or a view of something that crosses
                draft.nodes.add(place)
                pending.extend(node.input)
        return draft

    def _foreign(self, name: str, number: int) -> bool:
        """Whether a value is another part's: the cache of a layer, or computed there."""
        if cache := _CACHE.match(name):
            return self._part(int(cache[1])) != number
        if name not in self.producer or (self.free[self.producer[name]] and name != _KEPT):
            return False
        return self.part_of(name) != number

    def written(self, draft: _Draft, wanted: list[str], doc: str) -> onnx.ModelProto:
        """The part as a model of its own."""
        stand_ins = self._stand_ins(draft)
        names = {name: self.titles[name] for name in (*draft.taken, *wanted)}
        nodes = []
        for place in sorted(draft.nodes | draft.dimensions):
            node = NodeProto()
            node.CopyFrom(self.graph.node[place])
            if place in stand_ins:
                node.input[0], axis = stand_ins[place]
                del node.attribute[:]
                node.attribute.extend(
                    helper.make_attribute(key, axis + end) for end, key in enumerate(("start", "end"))
                )
            for values in (node.input, node.output):
                values[:] = [names.get(name, name) for name in values]
            nodes.append(node)
        used = {name for node in nodes for name in node.input}
        made = {name for node in nodes for name in node.output}
        # as the whole graph orders them: hidden states first, caches last
        whole_inputs = [name for name in self.inputs if name in draft.inputs]
        taken = sorted(draft.taken, key=lambda name: self.producer[name], reverse=True)
        graph = helper.make_graph(
            nodes,
            self.graph.name,
            [self._value(name) for name in taken] + [self.inputs[name] for name in whole_inputs],
            [self._value(name) for name in wanted],
            [weight for name, weight in self.weights.items() if name in used],
            f"{self.graph.doc_string} ({doc})",
            [value for value in self.graph.value_info if value.name in made],
        )
        domains = {node.domain for node in nodes}
        return helper.make_model(
            graph,
            ir_version=self.model.ir_version,
            opset_imports=self.model.opset_import,
            functions=[each for each in self.model.functions if each.domain in domains],
            producer_name=self.model.producer_name,
        )

    def _stand_ins(self, draft: _Draft) -> dict[int, tuple[str, int]]:
        """For every Shape node an input of the part, and its axis, with the dimension that is asked for."""
        offered: dict[str, tuple[str, int]] = {}
        for name in sorted(draft.inputs | draft.taken):
            for axis, dim in enumerate(self._value(name).type.tensor_type.shape.dim):
                offered.setdefault(dim.dim_param, (self.titles[name], axis))
        found = {}
        for place in draft.dimensions:
            dimension = self._dimension(self.graph.node[place])
            if dimension in offered:
                found[place] = offered[dimension]
            else:
                raise RuntimeError(f"part {draft.number} of the decoder has no input with {dimension}")
        return found

    def _value(self, name: str) -> ValueInfoProto:
        """A value as input or output of a part, with its dimensions in words of the whole graph's inputs."""
        value = ValueInfoProto()
        value.CopyFrom(self.types[name])
        value.name = self.titles[name]
        if value.name.startswith("untrimmed"):
            value.type.tensor_type.shape.dim[2].dim_param = "total_sequence"
        return value
