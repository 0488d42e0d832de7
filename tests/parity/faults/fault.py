"""A fault to plant, and the decoder it is planted in."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir

__all__ = ["FORMS", "Change", "Decoder", "Fault", "Form", "Named"]

Form = Literal["decoder.onnx", "decoder.cpu.onnx"]
FORMS: tuple[Form, ...] = ("decoder.onnx", "decoder.cpu.onnx")


class Decoder:
    """A form of the decoder, open for changes; ``form`` is the name of its file."""

    def __init__(self, model: ir.Model, form: Form) -> None:
        self.model, self.form, self.graph = model, form, model.graph
        self._planted: set[ir.Node] = set()
        self._constants = 0
        choice = self.find("If")
        self.choice = choice[0] if choice else None
        self.cut: ir.Graph = self.choice.attributes["then_branch"].as_graph() if self.choice else self.graph
        if self.choice:  # the branch has names of its own, which values of the graph may have, too
            for value in (value for node in self.cut for value in node.outputs):
                value.name = value.name if str(value.name).startswith("cut.") else f"cut.{value.name}"

    @property
    def on_cpu(self) -> bool:
        return self.form == "decoder.cpu.onnx"

    @property
    def attention(self) -> list[ir.Node]:
        """The attention node of every layer, in order."""
        kinds = {"Attention", "CausalAttention", "SoftMaskedAttention"}
        return [node for node in self.graph if node.op_type in kinds]

    @property
    def scoring_layer(self) -> int:
        """The number of the layer whose attention is soft."""
        (soft,) = (number for number, node in enumerate(self.attention) if self._is_soft(node))
        return soft

    def nodes(self) -> Iterator[ir.Node]:
        """Of the graph, and of the branch that cuts."""
        yield from self.graph
        if self.cut is not self.graph:
            yield from self.cut

    def find(self, kind: str) -> list[ir.Node]:
        """Nodes of an operator, behind the cut's branch, too."""
        cut = getattr(self, "cut", self.graph)
        both = [self.graph] if cut is self.graph else [self.graph, cut]
        return [node for graph in both for node in graph if node.op_type == kind]

    def only(self, kind: str) -> ir.Node:
        (node,) = self.find(kind)
        return node

    def value(self, name: str) -> ir.Value:
        """A value by its name, from wherever it is."""
        for value in self.values():
            if value.name == name:
                return value
        raise KeyError(name)

    @property
    def required_inputs(self) -> list[ir.Value]:
        """Those that have no default."""
        return [value for value in self.graph.inputs if value.name not in self.graph.initializers]

    def values(self) -> Iterator[ir.Value]:
        yield from self.required_inputs
        yield from self.graph.initializers.values()
        for node in self.nodes():
            yield from node.outputs

    def make(
        self, kind: str, *inputs: ir.Value | None, at: ir.Graph | None = None, **attributes: Any
    ) -> ir.Value:
        """The first output of a new node; ``domain`` and ``outputs``, their number, are keywords, too."""
        domain, outputs = attributes.pop("domain", ""), attributes.pop("outputs", 1)
        node = ir.node(kind, list(inputs), attributes=attributes, domain=domain, num_outputs=outputs)
        (at if at is not None else self.graph).append(node)
        self._planted.add(node)
        node.name = f"planted_node_{len(self._planted)}"
        for number, value in enumerate(node.outputs):
            value.name = f"{node.name}_{number}"
        return node.outputs[0]

    def constant(self, number: Any, like: np.dtype[Any] | type = np.int64) -> ir.Value:
        """A new initializer."""
        self._constants += 1
        tensor = ir.tensor(np.array(number, like))
        value = ir.Value(
            name=f"planted_{self._constants}",
            type=ir.TensorType(tensor.dtype),
            shape=tensor.shape,
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def replace(self, old: ir.Value, new: ir.Value, users: Iterable[ir.Node] | None = None) -> None:
        """Let nodes (all, but for the makers of ``new``) read another value; graph outputs stay."""
        makers = self._makers(new)
        chosen = [user for user, _ in old.uses()] if users is None else list(users)
        for user in chosen:
            if user in makers:
                continue
            for number, value in enumerate(user.inputs):
                if value is old:
                    user.replace_input_with(number, new)

    def first_k(self, like: ir.Value, at: ir.Graph | None = None) -> ir.Value:
        """0..K-1 in every row, for an index [B, K]."""
        shape = self.make("Shape", like, at=at)
        length = self.make("Squeeze", self.make("Shape", like, at=at, start=1, end=2), at=at)
        slots = self.make("Range", self.constant(0), length, self.constant(1), at=at)
        return self.make("Expand", slots, shape, at=at)

    def _makers(self, value: ir.Value) -> set[ir.Node]:
        """The planted nodes behind a value, by way of planted nodes."""
        found: set[ir.Node] = set()
        waiting = [value.producer()]
        while waiting:
            node = waiting.pop()
            if node is not None and node in self._planted and node not in found:
                found.add(node)
                waiting += [source.producer() for source in node.inputs if source is not None]
        return found

    @staticmethod
    def _is_soft(node: ir.Node) -> bool:
        if node.op_type != "Attention":
            return node.op_type == "SoftMaskedAttention"
        mask = node.inputs[3]
        maker = mask.producer() if mask is not None else None
        while maker is not None and maker.op_type == "Cast":
            maker = maker.inputs[0].producer() if maker.inputs[0] is not None else None
        return maker is not None and maker.op_type == "AsapMask"


Change = Callable[[Decoder], None]
Named = Iterator[tuple[str, str, Change]]  # kind, name, change


@dataclass(frozen=True)
class Fault:
    """One change of a decoder that makes it compute something else."""

    kind: str
    name: str
    form: Form
    change: Change

    def apply(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The model with the fault in it. Raises ValueError where it would make a cycle."""
        decoder = Decoder(ir.from_proto(model), self.form)
        self.change(decoder)
        decoder.graph.sort()
        return ir.to_proto(decoder.model)

    def __str__(self) -> str:
        return f"{self.form}: {self.kind}: {self.name}"
