"""The decoder as ONNX Runtime's CPU provider is fast with it: passes over ``decoder.onnx``, each with a name."""

from collections.abc import Callable, Sequence
from typing import get_args

import onnx_ir as ir

from asap_export.graph.cpu.activations import round_activations
from asap_export.graph.cpu.attention import fuse_attention
from asap_export.graph.cpu.cut import skip_cut
from asap_export.graph.cpu.functions import complete
from asap_export.graph.cpu.rows import rotate_rows
from asap_export.graph.cpu.soft_mask import soft_mask_in_blocks
from asap_export.spec import DEFAULT_CPU_PASSES, CpuPass

__all__ = ["CPU_PASSES", "lower_for_cpu", "passes_for"]

_PASSES: dict[CpuPass, Callable[[ir.Model], None]] = {
    "fused-attention": fuse_attention,
    "blockwise-soft-mask": soft_mask_in_blocks,
    "skipped-cut": skip_cut,
    "int8-activations": round_activations,
}
CPU_PASSES: tuple[CpuPass, ...] = get_args(CpuPass)

# What puts in GroupQueryAttention, and the head sizes that ONNX Runtime's takes: multiples of this.
_GROUP_QUERY: tuple[CpuPass, ...] = ("fused-attention", "blockwise-soft-mask")
_HEAD_SIZES = 8


def passes_for(head_dim: int, passes: Sequence[CpuPass]) -> tuple[tuple[CpuPass, ...], str | None]:
    """Those of the passes whose operators take heads of ``head_dim``; why not the others, None where all do."""
    left_out = [name for name in passes if head_dim % _HEAD_SIZES and name in _GROUP_QUERY]
    if not left_out:
        return tuple(passes), None
    reason = (
        f"without {' and '.join(left_out)}: ONNX Runtime's GroupQueryAttention takes head sizes that are "
        f"multiples of {_HEAD_SIZES}, and this model's is {head_dim}"
    )
    return tuple(name for name in passes if name not in left_out), reason


def lower_for_cpu(model: ir.Model, passes: Sequence[CpuPass] = DEFAULT_CPU_PASSES) -> None:
    """Run the named passes over a decoder, in their own order. What it computes stays as it was, but for rounding;
    ``int8-activations`` rounds visibly."""
    if not passes:
        return
    rotate_rows(model)
    for name in CPU_PASSES:
        if name in passes:
            _PASSES[name](model)
    complete(model)
