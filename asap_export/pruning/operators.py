"""The method as four PyTorch operators, ``torch.ops.asap.*``: what the exporter turns into ``ai.asap`` nodes.

Run eagerly they call the reference in this folder; traced, their fake implementations give the shapes.
Whatever the dtype of queries, keys and hidden states, the arithmetic is float32.
"""

import torch
from torch import Tensor

from asap_export.pruning.consolidation import merge_kept
from asap_export.pruning.mask import soft_mask
from asap_export.pruning.salience import attention_mass, normalised_salience
from asap_export.pruning.scores import received_attention, row_attention
from asap_export.pruning.topk import kept_positions

__all__ = ["mask", "merge", "score", "topk"]

_FEW = 512  # rows, whose exact sums cost little


@torch.library.custom_op("asap::mask", mutates_args=())
def mask(
    query: Tensor, key: Tensor, visual_mask: Tensor, attention_mask: Tensor, lambda_max: float, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """AsapMask: the scoring layer's bias [B, 1, T, S], mass [B, T] and salience [B, T], all float32.

    query: [B, H, T, d]; key: [B, Hkv, S, d], cached keys first; visual_mask: [B, T] bool;
    attention_mask: [B, S] bool.
    """
    new_key = key[:, :, key.shape[2] - query.shape[2] :]
    mass = attention_mass(query, new_key, visual_mask, scale)
    salience = normalised_salience(mass, visual_mask)
    return soft_mask(salience, visual_mask, attention_mask, lambda_max), mass, salience


@mask.register_fake
def _(
    query: Tensor, key: Tensor, visual_mask: Tensor, attention_mask: Tensor, lambda_max: float, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    batch, tokens = visual_mask.shape
    float32 = torch.float32
    bias = query.new_empty(batch, 1, tokens, attention_mask.shape[1], dtype=float32)
    return bias, query.new_empty(batch, tokens, dtype=float32), query.new_empty(batch, tokens, dtype=float32)


@torch.library.custom_op("asap::score", mutates_args=())
def score(query: Tensor, key: Tensor, bias: Tensor, row_weight: Tensor, scale: float) -> Tensor:
    """AsapScore: head-averaged attention received by every key, averaged over rows, [B, S] float32.

    query: [B, H, R, d]; key: [B, Hkv, S, d]; bias: [B, 1, R, S] float32; row_weight: [B, R] float32.
    """
    if query.shape[2] == 1:
        return row_attention(query[:, :, 0], key, bias[:, 0], scale) * row_weight
    counts = (row_weight != 0).any(dim=0)  # the others only take time
    rows = query[:, :, counts], key, bias[:, :, counts], row_weight[:, counts]
    return received_attention(*rows, scale, exact=int(counts.sum()) <= max(_FEW, query.shape[2] // 2))


@score.register_fake
def _(query: Tensor, key: Tensor, bias: Tensor, row_weight: Tensor, scale: float) -> Tensor:
    return key.new_empty(key.shape[0], key.shape[2], dtype=torch.float32)


@torch.library.custom_op("asap::topk", mutates_args=())
def topk(score: Tensor, visual_mask: Tensor, attention_mask: Tensor, kept_length: Tensor) -> Tensor:
    """AsapTopK: positions that survive the cut, ascending, [B, kept_length] int64.

    score: [B, T] float32; visual_mask, attention_mask: [B, T] bool; kept_length: [] int64.
    """
    return kept_positions(score, visual_mask, attention_mask, int(kept_length))


@topk.register_fake
def _(score: Tensor, visual_mask: Tensor, attention_mask: Tensor, kept_length: Tensor) -> Tensor:
    kept = torch.library.get_ctx().new_dynamic_size(min=1)
    return score.new_empty(score.shape[0], kept, dtype=torch.int64)


@torch.library.custom_op("asap::merge", mutates_args=())
def merge(
    hidden: Tensor, index: Tensor, visual_mask: Tensor, salience: Tensor, mass: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """AsapMerge: consolidated hidden states [B, K, D], their positions [B, K] int64, and absorbed [B, K] bool.

    hidden: [B, T, D]; index: [B, K] int64, ascending; visual_mask: [B, T] bool; salience, mass: [B, T] float32.
    """
    return merge_kept(hidden, index, visual_mask, salience, mass, threshold)


@merge.register_fake
def _(
    hidden: Tensor, index: Tensor, visual_mask: Tensor, salience: Tensor, mass: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    batch, kept = index.shape
    merged = hidden.new_empty(batch, kept, hidden.shape[2])
    return merged, torch.empty_like(index), index.new_empty(batch, kept, dtype=torch.bool)
