"""Pass: shape arithmetic on known numbers is done once, here, and the graph says only what happens to tensors.

Traced without weights and without the exporter's own optimisation, a graph holds hundreds of constants and
reshapes that come to nothing. Weights stay references: nothing that is computed from one is folded, because a
folded transpose would be a second copy of it in the graph file.
"""

import onnx_ir as ir
from onnxscript import optimizer

__all__ = ["simplify"]

_LARGEST_CONSTANT = 1024  # elements: shapes, axes, rotary frequencies


def simplify(model: ir.Model) -> None:
    """Fold constants, drop what is unused, and forget where the exporter's nodes came from."""
    optimizer.optimize_ir(
        model,
        input_size_limit=_LARGEST_CONSTANT,
        output_size_limit=_LARGEST_CONSTANT,
        should_fold=_keeps_references,
        inline=False,
    )
    for node in model.graph:
        node.metadata_props.clear()  # stack traces with paths of the exporting machine
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _keeps_references(node: ir.Node) -> bool | None:
    holds_weight = any(value and isinstance(value.const_value, ir.ExternalTensor) for value in node.inputs)
    return False if holds_weight else None
