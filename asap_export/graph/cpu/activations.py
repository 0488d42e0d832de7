"""Pass ``int8-activations``: products with quantized weights round their activations to 8 bits.

They then multiply integers, which is what makes such weights fast on a CPU. With 4-bit weights MatMulNBits rounds
block by block; with 8-bit ones RoundedMatMul takes the place of MatMul and rounds row by row.
"""

import onnx
import onnx_ir as ir

from asap_export.graph.cpu.functions import CPU_DOMAIN, call
from asap_export.graph.cpu.rows import take_over
from asap_export.spec import CpuPass

__all__ = ["ROUNDING", "keep_activations", "round_activations"]

ROUNDING: CpuPass = "int8-activations"

_INT8 = 4  # MatMulNBits' accuracy_level
_ROUNDED = "RoundedMatMul"


def round_activations(model: ir.Model) -> None:
    """Let every product with quantized weights round what it is given."""
    for node in list(model.graph):
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", _INT8)
        elif node.op_type == "MatMul" and (weight := _dequantized(node.inputs[1])) is not None:
            rounded = call(_ROUNDED, [node.inputs[0], *weight.inputs])
            model.graph.insert_before(node, rounded)
            take_over(node.outputs[0], rounded.outputs[0])
            model.graph.remove(node, safe=True)


def keep_activations(model: onnx.ModelProto) -> None:
    """Take the pass back: activations stay floating-point, as without it."""
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            kept = [attribute for attribute in node.attribute if attribute.name != "accuracy_level"]
            del node.attribute[:]
            node.attribute.extend(kept)
    for function in model.functions:
        if (function.domain, function.name) == (CPU_DOMAIN, _ROUNDED):
            rows, codes, scales = function.input
            del function.node[:]
            function.node.extend(
                [
                    onnx.helper.make_node("DequantizeLinear", [codes, scales], ["weight"], axis=1),
                    onnx.helper.make_node("MatMul", [rows, "weight"], function.output),
                ]
            )


def _dequantized(weight: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that a weight of 8 bits comes from."""
    node = weight.producer() if weight is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return None
    return node if node.inputs[0].dtype == ir.DataType.INT8 else None
