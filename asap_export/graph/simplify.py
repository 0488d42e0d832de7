"""Pass: shape arithmetic on known numbers is done once, here, and the graph says only what happens to tensors.

Traced without weights and without the exporter's own optimisation, a graph holds hundreds of constants and
reshapes that come to nothing. Weights are still inputs at this point, so that nothing computed from one is
folded: a folded transpose would be a second copy of it in the graph file.
"""

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer, rewriter

from asap_export.graph.reshape import state_known_sizes

__all__ = ["simplify"]

_LARGEST_CONSTANT = 1024  # elements: shapes, axes, rotary frequencies


def simplify(model: ir.Model) -> None:
    """Fold constants, drop what is unused or said twice, and forget where the exporter's nodes came from."""
    for _ in range(2):  # rewriting opens new constants to fold
        optimizer.fold_constants(
            model,
            onnx_shape_inference=True,
            input_size_limit=_LARGEST_CONSTANT,
            output_size_limit=_LARGEST_CONSTANT,
        )
        rewriter.rewrite(model)
    state_known_sizes(model)
    ir.passes.Sequential(
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)
    graph = model.graph
    for node in graph:
        node.metadata_props.clear()  # stack traces with paths of the exporting machine
    for value in (
        *graph.inputs,
        *graph.initializers.values(),
        *(out for node in graph for out in node.outputs),
    ):
        value.metadata_props.clear()
