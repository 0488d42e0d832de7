"""Before all passes: query and key are rotated as the rows [B, T, H·d] that the projections leave.

So fused attention takes them without a transpose.
"""

from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import RewriteRule

__all__ = ["known_size", "producer_of", "rotate_rows", "take_over"]


def rotate_rows(model: ir.Model) -> None:
    """Rotate rows, and split them into heads afterwards, in every attention layer.

    Raises ValueError where the graph is none of ours.
    """
    rule = RewriteRule(_split_then_rotated, _rotated_then_split)
    layers = sum(node.op_type == "Attention" for node in model.graph)
    if (found := rule.apply_to_model(model)) != 2 * layers:
        raise ValueError(f"expected a rotated query and key in each of {layers} attentions, found {found}")


def _split_then_rotated(op: Any, rows: Any, shape: Any, cos: Any, sin: Any) -> Any:
    heads = op.Transpose(op.Reshape(rows, shape), perm=[0, 2, 1, 3])
    return op.RotaryEmbedding(heads, cos, sin, _outputs=["rotated"])


def _rotated_then_split(op: Any, rows: Any, shape: Any, cos: Any, sin: Any, rotated: ir.Value) -> Any:
    turned = op.RotaryEmbedding(rows, cos, sin, num_heads=known_size(rotated, 1))
    return op.Transpose(op.Reshape(turned, shape), perm=[0, 2, 1, 3])


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Let a value stand wherever another one did, under its name."""
    new.name, new.shape, new.type, new.doc_string = old.name, old.shape, old.type, old.doc_string
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
