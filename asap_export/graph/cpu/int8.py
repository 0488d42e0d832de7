"""Pass ``int8-activations``: products with 4-bit weights round their activations to 8 bits, block by block.

MatMulNBits then multiplies integers, which is what makes 4-bit weights fast on a CPU.
"""

import onnx_ir as ir

__all__ = ["round_activations"]

_INT8 = 4  # MatMulNBits' accuracy_level


def round_activations(model: ir.Model) -> None:
    """Set the accuracy level of every MatMulNBits."""
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", _INT8)
