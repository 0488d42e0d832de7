"""Before all passes: query and key are rotated as the rows [B, T, H·d] that the projections leave.

So fused attention takes them without a transpose.
"""

import onnx_ir as ir

__all__ = ["known_size", "producer_of", "rotate_rows", "take_over"]


def rotate_rows(model: ir.Model) -> None:
    """Rotate rows, and split them into heads afterwards, in every attention layer.

    Raises ValueError where the graph is none of ours.
    """
    for node in [node for node in model.graph if node.op_type == "Attention"]:
        _rotate_rows(model.graph, node)


def _rotate_rows(graph: ir.Graph, attention: ir.Node) -> None:
    """Rotate query and key as rows [B, T, H·d], before they are split into heads."""
    for value in (attention.inputs[0], producer_of(attention.inputs[1]).inputs[1]):
        rotation = producer_of(value)
        if rotation.op_type != "RotaryEmbedding":
            raise ValueError(f"expected a rotary embedding before an attention, found {rotation}")
        transpose = producer_of(rotation.inputs[0])
        reshape = producer_of(transpose.inputs[0])
        out = rotation.outputs[0]
        heads = known_size(out, 1)
        turned = ir.node(
            "RotaryEmbedding", [reshape.inputs[0], *rotation.inputs[1:]], attributes={"num_heads": heads}
        )
        split = ir.node("Reshape", [turned.outputs[0], reshape.inputs[1]])
        final = ir.node("Transpose", [split.outputs[0]], attributes={"perm": [0, 2, 1, 3]})
        graph.insert_before(rotation, [turned, split, final])
        take_over(out, final.outputs[0])


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Let a value stand wherever another one did, under its name."""
    new.name, new.shape, new.type = old.name, old.shape, old.type
    old.name = f"{old.name}.replaced"
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def known_size(value: ir.Value | None, axis: int) -> int:
    """The size of a dimension that the graph states as a number; ValueError where it does not."""
    size = value.shape[axis] if value is not None and value.shape is not None else None
    if not isinstance(size, int):
        raise ValueError(f"expected a known size of axis {axis} of {value}")
    return size


def producer_of(value: ir.Value | None) -> ir.Node:
    """The node that computes a value. Raises ValueError where it is missing, or an input of the graph."""
    node = value.producer() if value is not None else None
    if node is None:
        raise ValueError(f"expected {value} to be computed")
    return node
