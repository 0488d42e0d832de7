"""Pass: a reshape asks for the sizes that are known, and leaves none of them to be found out.

Traced attention splits a hidden state into ``[batch, sequence, -1, head_dim]``. Runtimes that plan a graph
before they see data, TensorRT among them, can no longer tell the number of heads behind the cut, where the
sequence's length is a computed one, and refuse the attention that follows.
"""

import onnx_ir as ir

__all__ = ["state_known_sizes"]


def state_known_sizes(model: ir.Model) -> None:
    """Replace -1 in the shape of a Reshape by the number, where the output's shape has one at its place."""
    for node in list(model.graph):
        if node.op_type != "Reshape" or node.outputs[0].shape is None:
            continue
        shape = node.inputs[1]
        concat = shape.producer() if shape is not None else None
        sizes = node.outputs[0].shape
        if concat is None or concat.op_type != "Concat" or len(concat.inputs) != len(sizes):
            continue
        known = {
            axis: size
            for axis, (piece, size) in enumerate(zip(concat.inputs, sizes, strict=True))
            if isinstance(size, int) and _is_left_open(piece)
        }
        if known:
            node.replace_input_with(1, _with_sizes(node, concat, known))


def _is_left_open(piece: ir.Value | None) -> bool:
    tensor = ir.convenience.get_const_tensor(piece) if piece is not None else None
    return tensor is not None and tensor.numpy().tolist() == [-1]


def _with_sizes(reshape: ir.Node, concat: ir.Node, known: dict[int, int]) -> ir.Value:
    """The shape that ``concat`` makes, with ``known`` sizes at their axes; its nodes go before ``reshape``."""
    pieces = list(concat.inputs)
    nodes = []
    for axis, size in known.items():
        constant = ir.node("Constant", [], attributes={"value_ints": ir.AttrInt64s("value_ints", [size])})
        nodes.append(constant)
        pieces[axis] = constant.outputs[0]
    joined = ir.node("Concat", pieces, attributes={"axis": 0})
    assert reshape.graph is not None
    reshape.graph.insert_before(reshape, [*nodes, joined])
    return joined.outputs[0]
