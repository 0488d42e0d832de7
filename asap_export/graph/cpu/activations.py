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
_ROWS, _PRODUCT = "RoundedRows", "RoundedMatMul"


def round_activations(model: ir.Model) -> None:
    """Let every product with quantized weights round what it is given."""
    rounded: dict[ir.Value, ir.Node] = {}  # rows that several products are given are rounded once
    for node in list(model.graph):
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", _INT8)
        elif node.op_type == "MatMul" and (weight := _dequantized(node.inputs[1])) is not None:
            _round(model.graph, node, weight, rounded)


def _round(graph: ir.Graph, product: ir.Node, weight: ir.Node, rounded: dict[ir.Value, ir.Node]) -> None:
    """Put a product of integers in the place of one with dequantized weights."""
    (rows, _), (codes, scales) = product.inputs, weight.inputs
    assert rows is not None and scales is not None
    stored = scales.dtype

    def added(node: ir.Node) -> ir.Value:
        graph.insert_before(product, node)
        return node.outputs[0]

    def cast(value: ir.Value, to: ir.DataType | None) -> ir.Value:
        if stored == ir.DataType.FLOAT or to is None:  # ONNX Runtime would copy it
            return value
        return added(ir.node("Cast", [value], attributes={"to": to}))

    if rows not in rounded:
        rounded[rows] = call(_ROWS, [cast(rows, ir.DataType.FLOAT)], outputs=2)
        added(rounded[rows])
    inputs = [*rounded[rows].outputs, codes, cast(scales, ir.DataType.FLOAT)]
    take_over(product.outputs[0], cast(added(call(_PRODUCT, inputs)), stored))
    graph.remove(product, safe=True)


def keep_activations(model: onnx.ModelProto) -> None:
    """Take the pass back: activations stay floating-point, as without it."""
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            kept = [attribute for attribute in node.attribute if attribute.name != "accuracy_level"]
            del node.attribute[:]
            node.attribute.extend(kept)
    make = onnx.helper.make_node
    bodies = {
        _ROWS: [make("Identity", ["rows"], ["rounded"]), make("Constant", [], ["step"], value_float=1.0)],
        _PRODUCT: [
            make("DequantizeLinear", ["codes", "scales"], ["weight"], axis=1),
            make("MatMul", ["rounded", "weight"], ["product"]),
        ],
    }
    for function in model.functions:
        if function.domain == CPU_DOMAIN and function.name in bodies:
            del function.node[:]
            function.node.extend(bodies[function.name])


def _dequantized(weight: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that a weight of 8 bits comes from."""
    node = weight.producer() if weight is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return None
    return node if node.inputs[0].dtype == ir.DataType.INT8 else None
