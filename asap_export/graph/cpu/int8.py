"""Pass ``int8-activations``: products with 4-bit weights round their activations to 8 bits, block by block.

MatMulNBits then multiplies integers, which is what makes 4-bit weights fast on a CPU.
"""

import onnx
import onnx_ir as ir

from asap_export.spec import CpuPass

__all__ = ["ROUNDING", "keep_activations", "round_activations"]

ROUNDING: CpuPass = "int8-activations"

_INT8 = 4  # MatMulNBits' accuracy_level


def round_activations(model: ir.Model) -> None:
    """Set the accuracy level of every MatMulNBits."""
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", _INT8)


def keep_activations(model: onnx.ModelProto) -> None:
    """Take the pass back: activations stay floating-point, as without it."""
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            kept = [attribute for attribute in node.attribute if attribute.name != "accuracy_level"]
            del node.attribute[:]
            node.attribute.extend(kept)
