"""Caches that may be longer than what they hold, so that a caller can let them grow in place."""

from collections.abc import Sequence

import onnx_ir as ir

__all__ = ["CAPACITY", "UNTRIMMED", "appends_in_place", "open_caches"]

CAPACITY = "capacity"  # places of a cache, which may be more than it holds
UNTRIMMED = "untrimmed"  # places of a cache that still holds the new tokens that were cut

_APPENDING = {"CausalAttention", "SoftMaskedAttention"}


def appends_in_place(present: ir.Value) -> bool:
    """Whether a cache leaves the graph as an attention layer does that can write behind the cached tokens."""
    producer = present.producer()
    return producer is not None and producer.op_type in _APPENDING


def open_caches(graph: ir.Graph, pasts: Sequence[ir.Value]) -> None:
    """Let these caches be longer than their content.

    The graph must then not ask them how much they hold; attention_mask and the new tokens tell, for caches that
    have as many places as that mask without the new ones. Raises ValueError where the graph is none of ours.
    """
    for past in pasts:
        assert past.shape is not None
        past.shape = ir.Shape([*past.shape[:2], CAPACITY, past.shape[3]])
    asked = [user for past in pasts for user, _ in past.uses() if user.op_type == "Shape"]
    if not any(_axis(node) == 2 for node in asked):
        return
    inputs = {value.name: value for value in graph.inputs}
    total, new = (
        ir.node("Shape", [inputs[name]], attributes={"start": 1, "end": 2})
        for name in ("attention_mask", "inputs_embeds")
    )
    length = ir.node("Sub", [total.outputs[0], new.outputs[0]])
    graph.insert_before(graph[0], [total, new, length])
    for node in asked:
        if _axis(node) == 2:
            ir.convenience.replace_all_uses_with(node.outputs[0], length.outputs[0])
        elif _axis(node) != 0:
            raise ValueError(f"expected one dimension of a cache to be asked for, found {node}")


def _axis(shape: ir.Node) -> int | None:
    """The one dimension that a Shape node gives; None where it gives several."""
    start, end = shape.attributes.get_int("start", 0), shape.attributes.get_int("end", None)
    return start if end == start + 1 else None
