"""What the layers of a stage share: those before the cut see the same tokens, and so do those behind it."""

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from asap_export.graph.cpu.functions import call
from asap_export.graph.operators import DOMAIN

__all__ = ["FILLED", "Plainness", "Stages", "is_soft", "valid_of"]

# An optional input of the decoder for the CPU: how many places of its caches each row has filled. Without it all
# rows are as long as the mask.
FILLED = "filled_places"


class Plainness(NamedTuple):
    """Outputs of Plain and CausalMask: plain, tiled [] bool; last [B], total [] int32; mask [B, 1, T, S] bool."""

    plain: ir.Value
    tiled: ir.Value
    last: ir.Value
    total: ir.Value
    mask: ir.Value


class Stages:
    """Makes what a stage shares when its first attention layer asks for it."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._made: dict[ir.Value, Plainness] = {}

    def of(self, attention: ir.Node, valid: ir.Value, tokens: ir.Value) -> Plainness:
        """For the stage of an attention node; valid: [B, S] bool; tokens: [B, T, ...]."""
        if valid not in self._made:
            plain = call("Plain", [valid, tokens, self._filled(valid)], outputs=4)
            mask = call("CausalMask", [valid, tokens, plain.outputs[0]])
            self._graph.insert_before(attention, [plain, mask])
            is_plain, tiled, last, total = plain.outputs
            self._made[valid] = Plainness(is_plain, tiled, last, total, mask.outputs[0])
        return self._made[valid]

    def _filled(self, valid: ir.Value) -> ir.Value:
        """The optional input, [B] int64 or [1] of -1, which is what it is where nobody gives it. Caches of a stage
        with a mask of its own do not grow in place, so that its rows have one length."""
        own = any(value.name == "early_attention_mask" for value in _ancestors(valid))
        name = f"early_{FILLED}" if own else FILLED
        known = self._graph.initializers.get(name)
        if known is not None:
            return known
        filled = ir.Value(
            name=name, shape=ir.Shape([1 if own else "rows"]), type=ir.TensorType(ir.DataType.INT64)
        )
        filled.doc_string = (
            "Places of its caches that each row has filled; optional, for rows of one new token"
        )
        filled.const_value = ir.tensor(np.array([-1], np.int64), name=name)
        self._graph.register_initializer(filled)
        if not own:
            self._graph.inputs.append(filled)
        return filled


def is_soft(mask: ir.Value) -> bool:
    """Whether an attention's mask is SG-BiMask; all others of the decoder are causal."""
    node = mask.producer()
    if node is not None and node.op_type == "Cast":  # to the model's dtype
        return is_soft(_input(node, 0))
    return node is not None and (node.op_type, node.domain) == ("AsapMask", DOMAIN)


def valid_of(mask: ir.Value) -> ir.Value:
    """From the mask of an attention node, bool or float, the [B, S] bool of valid tokens that it was made of.

    Raises ValueError where the graph is none of ours.
    """
    node = mask.producer()
    if node is None:
        raise ValueError("expected an attention mask that is computed")
    if (node.op_type, node.domain) == ("AsapMask", DOMAIN):
        return _input(node, 3)
    if node.op_type in ("Cast", "Where"):
        return valid_of(_input(node, 0))
    steps = ("Unsqueeze", "Or", "And")  # causal_mask in pruning/mask.py
    for name in steps:
        if node is None or node.op_type != name:
            raise ValueError(f"expected {' of '.join(steps)} in a causal mask, found {node}")
        value = _input(node, 1 if name == "And" else 0)
        node = value.producer()
    if node is None or node.op_type != "Unsqueeze":
        raise ValueError(f"expected valid keys in a causal mask, found {node}")
    return _input(node, 0)


def _ancestors(value: ir.Value) -> set[ir.Value]:
    """A value and all that it is computed from."""
    found, open_ = set(), [value]
    while open_:
        one = open_.pop()
        if one not in found:
            found.add(one)
            node = one.producer()
            open_ += [each for each in node.inputs if each is not None] if node is not None else []
    return found


def _input(node: ir.Node, number: int) -> ir.Value:
    value = node.inputs[number]
    if value is None:
        raise ValueError(f"expected input {number} of {node}")
    return value
