"""The decoder as ONNX Runtime's CUDA provider is fast with it.

Where nothing can be cut, as in every decode step, the pruning nodes do not run: there they are many small kernels,
which take longer than a step saves by its shorter caches. Inputs and outputs are those of ``decoder.onnx``: caches
stay on the device, so they leave the graph trimmed.
"""

import onnx_ir as ir

from asap_export.graph.cpu.cut import put_behind_if, trimmed_caches
from asap_export.graph.cpu.functions import complete
from asap_export.graph.operators import DOMAIN

__all__ = ["cuts", "lower_for_cuda"]


def cuts(model: ir.Model) -> bool:
    """Whether a decoder has a cut, so that there is something to lower."""
    return any(node.domain == DOMAIN for node in model.graph)


def lower_for_cuda(model: ir.Model) -> None:
    """Put the cut of a decoder that has one behind an If. What it computes stays as it was, to the last bit."""
    put_behind_if(model.graph, trimmed_caches(model.graph))
    complete(model)
