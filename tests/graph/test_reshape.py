"""Reshapes ask for the sizes that are known."""

import onnx_ir as ir
import pytest

from asap_export.graph.reshape import state_known_sizes


def split_heads(heads: int | str) -> ir.Model:
    """[batch, tokens, 256] -> [batch, tokens, -1, 64], where the graph says what -1 comes to, or names it."""
    return ir.from_onnx_text(f"""
        <ir_version: 11, opset_import: ["" : 23]>
        split (float[batch,tokens,256] x) => (float[batch,tokens,{heads},64] y) {{
          batch = Shape <start = 0, end = 1> (x)
          tokens = Shape <start = 1, end = 2> (x)
          open = Constant <value_ints = [-1]> ()
          width = Constant <value_ints = [64]> ()
          shape = Concat <axis = 0> (batch, tokens, open, width)
          y = Reshape (x, shape)
        }}""")


def asked_sizes(model: ir.Model) -> list[list[int] | None]:
    """What the reshape asks for at each axis; None is computed."""
    reshape = next(node for node in model.graph if node.op_type == "Reshape")
    pieces = [ir.convenience.get_const_tensor(piece) for piece in reshape.inputs[1].producer().inputs]
    return [None if piece is None else piece.numpy().tolist() for piece in pieces]


@pytest.mark.parametrize(("heads", "asked"), [(4, [4]), ("heads", [-1])])
def test_what_the_output_says_is_asked_for(heads, asked):
    model = split_heads(heads)
    state_known_sizes(model)
    assert asked_sizes(model) == [None, None, asked, [64]]
