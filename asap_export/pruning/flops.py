"""What a prefill costs, dense and pruned, in two ways of counting; a multiply-add counts once in both.

*Paper accounting* (App. B) counts image tokens only and takes every head for a full one. It is what
published numbers can be compared with. *Whole-sequence accounting* counts what the decoder of this checkpoint
does for a prompt of one row: text tokens too, projections as narrow as grouped-query attention makes them,
and the head for the one position that is read. Both count attention as full squares (causal kernels may do
half of it), and neither counts norms, rotary embedding, the vision tower with its projector, or the scoring
and merging itself: one more set of logits for the scoring layer (visual tokens² · width) and one product
among the kept tokens (keep² · width), once.
"""

from dataclasses import dataclass
from typing import Self

from asap_export.pruning.config import PruningConfig
from asap_export.spec import ModelSpec

__all__ = [
    "DTYPE_BYTES",
    "DecoderShape",
    "kv_cache_bytes",
    "layer_average",
    "paper_flops",
    "whole_sequence_flops",
]

DTYPE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a language model that its cost depends on."""

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        return cls(
            spec.layers, spec.hidden_size, spec.intermediate_size, spec.heads, spec.kv_heads, spec.head_dim,
            spec.vocab_size,
        )  # fmt: skip


def layer_average(visual_tokens: int, keep: int, layers: int, prune_after: int) -> float:
    """Mean visual tokens per layer, the full layers before the cut included: the paper's nominal budget."""
    return (prune_after * visual_tokens + (layers - prune_after) * keep) / layers


def paper_flops(shape: DecoderShape, visual_tokens: int, keep: int, prune_after: int = 2) -> int:
    """FLOPs of the image tokens alone; ``keep == visual_tokens`` is the dense model."""

    def layer(v: int) -> int:
        d, m = shape.hidden_size, shape.intermediate_size
        return 4 * v * d**2 + 2 * v**2 * d + 3 * v * d * m

    return prune_after * layer(visual_tokens) + (shape.layers - prune_after) * layer(keep)


def whole_sequence_flops(
    shape: DecoderShape, visual_tokens: int, text_tokens: int, keep: int, prune_after: int = 2
) -> int:
    """FLOPs of the decoder's prefill of one row; ``keep == visual_tokens`` is the dense model."""
    d, m = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim

    def layer(t: int) -> int:
        projections = t * d * (2 * queries + 2 * keys)  # q and output, k and v
        attention = 2 * t**2 * queries  # q·kᵀ, and its product with v
        return projections + attention + 3 * t * d * m

    before, after = text_tokens + visual_tokens, text_tokens + keep
    return prune_after * layer(before) + (shape.layers - prune_after) * layer(after) + d * shape.vocab_size


def kv_cache_bytes(
    shape: DecoderShape, visual_tokens: int, text_tokens: int, keep: int, dtype: str, pruning: PruningConfig
) -> int:
    """Bytes of the KV cache of one row after prefill; ``keep == visual_tokens`` is the dense model.

    Without ``trim_early_kv`` the layers before the cut hold every token.
    """
    per_token = 2 * shape.kv_heads * shape.head_dim * DTYPE_BYTES[dtype]
    full, short = text_tokens + visual_tokens, text_tokens + keep
    early = short if pruning.trim_early_kv else full
    return per_token * (pruning.prune_after * early + (shape.layers - pruning.prune_after) * short)
