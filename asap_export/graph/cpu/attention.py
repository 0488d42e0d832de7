"""Pass ``fused-attention``: causal attention layers are one fused operator that also appends to the cache.

The Attention of ONNX Runtime's CPU provider holds all scores of all heads, and the cache is concatenated before it
at every step. Its GroupQueryAttention works in tiles, skips what the causal mask closes, and writes the new tokens
behind the cached ones, in place where the caller binds the same buffer as past and as present.
"""

from typing import NamedTuple

import onnx_ir as ir

from asap_export.graph.cpu.functions import call
from asap_export.graph.cpu.rows import known_size, producer_of, take_over
from asap_export.graph.cpu.stages import Stages, is_soft, valid_of

__all__ = ["CAPACITY", "fuse_attention"]

CAPACITY = "capacity"  # the dimension of caches that may be longer than what they hold


def fuse_attention(model: ir.Model) -> None:
    """Replace every Attention node whose mask is causal by CausalAttention.

    Raises ValueError where the graph is none of ours.
    """
    graph = model.graph
    stages = Stages(graph)
    fused: list[tuple[_Layer, ir.Value]] = []
    for node in [node for node in graph if node.op_type == "Attention"]:
        mask = node.inputs[3]
        assert mask is not None
        if not is_soft(mask):
            valid = valid_of(mask)
            layer = _layer(node)
            _fuse(graph, layer, stages, valid)
            fused.append((layer, valid))
    _open_caches(graph, [layer for layer, valid in fused if valid is fused[-1][1]])


class _Layer(NamedTuple):
    """One attention layer: 4-D nodes to replace, and rows [B, T, H·d] to make it from."""

    attention: ir.Node
    query: ir.Value
    key: ir.Value
    value: ir.Value
    keys: ir.Node  # Concat of cached and new ones
    values: ir.Node
    rows: ir.Node  # the Reshape to [B, T, H·d] behind the attention


def _layer(attention: ir.Node) -> _Layer:
    query, key, value = (producer_of(value) for value in attention.inputs[:3])
    back = _only_user(_only_user(attention, "Transpose"), "Reshape")
    new_key, new_value = producer_of(key.inputs[1]), producer_of(value.inputs[1])
    return _Layer(attention, _rows(query), _rows(new_key), _rows(new_value), key, value, back)


def _rows(transpose: ir.Node) -> ir.Value:
    """The value [B, T, H·d] that was split into heads [B, H, T, d]."""
    rows = producer_of(transpose.inputs[0]).inputs[0]
    assert rows is not None
    return rows


def _fuse(graph: ir.Graph, layer: _Layer, stages: Stages, valid: ir.Value) -> None:
    attention = layer.attention
    heads, kv_heads = known_size(attention.inputs[0], 1), known_size(attention.inputs[1], 1)
    shared = stages.of(attention, valid, layer.query)
    past = layer.keys.inputs[0], layer.values.inputs[0]
    inputs = (layer.query, layer.key, layer.value, *past, *shared)
    scale = attention.attributes["scale"].as_float()
    node = call("CausalAttention", inputs, {"heads": heads, "kv_heads": kv_heads, "scale": scale}, 3)
    graph.insert_before(attention, node)
    for old, new in zip((layer.rows, layer.keys, layer.values), node.outputs, strict=True):
        take_over(old.outputs[0], new)


def _open_caches(graph: ir.Graph, layers: list[_Layer]) -> None:
    """Let caches of the last stage be longer than their content, where they leave the graph as the attention does.

    The graph must then not ask them how much they hold; attention_mask and the new tokens tell.
    """
    outputs = {value.name: value for value in graph.outputs}
    inputs = {value.name: value for value in graph.inputs}
    opened: list[ir.Value] = []
    for layer in layers:
        for past in (layer.keys.inputs[0], layer.values.inputs[0]):
            assert past is not None and past.name is not None
            present = outputs.get(past.name.replace("past_key_values", "present"))
            producer = present.producer() if present is not None else None
            if present is None or producer is None or producer.op_type != "CausalAttention":
                continue  # trimmed on its way out
            for value in (past, present):
                assert value.shape is not None
                value.shape = ir.Shape([*value.shape[:2], CAPACITY, value.shape[3]])
            opened.append(past)
    asked = [user for past in opened for user, _ in past.uses() if user.op_type == "Shape"]
    if not any(_axis(node) == 2 for node in asked):
        return
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


def _only_user(node: ir.Node, kind: str) -> ir.Node:
    users = [user for user, _ in node.outputs[0].uses()]
    if len(users) != 1 or users[0].op_type != kind:
        raise ValueError(f"expected one {kind} behind {node}, found {users}")
    return users[0]
