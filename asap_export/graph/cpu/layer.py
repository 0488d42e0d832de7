"""An attention layer of ``decoder.onnx`` with rotated rows: what a fused one is made of, and stands in for."""

from typing import NamedTuple

import onnx_ir as ir

from asap_export.graph.cpu.rows import known_size, producer_of, take_over

__all__ = ["Layer", "layer_of"]


class Layer(NamedTuple):
    """4-D nodes to replace, and rows [B, T, H·d] to make it from."""

    attention: ir.Node
    query: ir.Value
    key: ir.Value
    value: ir.Value
    keys: ir.Node  # Concat of cached and new ones
    values: ir.Node
    rows: ir.Node  # the Reshape to [B, T, H·d] behind the attention

    def inputs(self) -> tuple[ir.Value | None, ...]:
        """Rows of query, key and value, and the cached keys and values."""
        return self.query, self.key, self.value, self.keys.inputs[0], self.values.inputs[0]

    def settings(self) -> dict[str, float]:
        """The attributes heads, kv_heads and scale."""
        heads, kv_heads = (known_size(self.attention.inputs[number], 1) for number in (0, 1))
        return {"heads": heads, "kv_heads": kv_heads, "scale": self.attention.attributes["scale"].as_float()}

    def replace(self, graph: ir.Graph, fused: ir.Node) -> None:
        """Put a node in the layer's place; its outputs begin with rows, keys and values."""
        graph.insert_before(self.attention, fused)
        for old, new in zip((self.rows, self.keys, self.values), fused.outputs[:3], strict=True):
            take_over(old.outputs[0], new)


def layer_of(attention: ir.Node) -> Layer:
    """The layer around an Attention node. Raises ValueError where the graph is none of ours."""
    query, key, value = (producer_of(value) for value in attention.inputs[:3])
    back = _only_user(_only_user(attention, "Transpose"), "Reshape")
    new_key, new_value = producer_of(key.inputs[1]), producer_of(value.inputs[1])
    return Layer(attention, _rows(query), _rows(new_key), _rows(new_value), key, value, back)


def _rows(transpose: ir.Node) -> ir.Value:
    """The value [B, T, H·d] that was split into heads [B, H, T, d]."""
    rows = producer_of(transpose.inputs[0]).inputs[0]
    assert rows is not None
    return rows


def _only_user(node: ir.Node, kind: str) -> ir.Node:
    users = [user for user, _ in node.outputs[0].uses()]
    if len(users) != 1 or users[0].op_type != kind:
        raise ValueError(f"expected one {kind} behind {node}, found {users}")
    return users[0]
