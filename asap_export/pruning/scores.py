"""What ranks a visual token: attention it receives from chosen rows (paper Fig 3; FastV's criterion)."""

import torch
from torch import Tensor

from asap_export.pruning.config import Score

__all__ = ["cut_weight", "last_valid_row", "received_attention", "row_attention", "row_weight"]


def row_weight(score: Score, visual_mask: Tensor, attention_mask: Tensor) -> Tensor:
    """Which rows of the attention matrix are averaged for a score, as weights that add up to 1 per row of B.

    ``received``: the visual rows; ``text``: the valid non-visual rows after the last visual token;
    ``last``: the last valid row. Without such a row all weights are 0.

    visual_mask, attention_mask: [B, T] bool, of the new tokens. Returns [B, T] float32.
    """
    position = torch.arange(visual_mask.shape[1], device=visual_mask.device)
    if score == "received":
        rows = visual_mask
    elif score == "text":
        last_visual = torch.where(visual_mask, position, -1).amax(dim=1, keepdim=True)
        rows = attention_mask & ~visual_mask & (position > last_visual)
    elif score == "last":
        rows = position == last_valid_row(attention_mask)[:, None]
    else:
        raise ValueError(f"the score {score!r} is not an average of attention rows")
    weight = rows.float()
    return weight / weight.sum(dim=1, keepdim=True).clamp_min(1.0)


def cut_weight(score: Score, visual_mask: Tensor, attention_mask: Tensor) -> Tensor:
    """``row_weight`` for a cut; all are 0 in a sequence without visual tokens, of which it asks nothing.

    visual_mask, attention_mask: [B, T] bool, of the new tokens. Returns [B, T] float32.
    """
    weight = row_weight(score, visual_mask, attention_mask)
    return weight * visual_mask.any(dim=1, keepdim=True).float()


def last_valid_row(attention_mask: Tensor) -> Tensor:
    """Position of each sequence's last valid token. attention_mask: [B, T] bool. Returns [B] int64."""
    position = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return torch.where(attention_mask, position, 0).amax(dim=1)


def received_attention(
    query: Tensor, key: Tensor, bias: Tensor, weight: Tensor, scale: float, exact: bool = False
) -> Tensor:
    """Attention every key receives: ``Σ_i weight_i · mean_h softmax(q·kᵀ·scale + bias)_ij``.

    One head at a time, so that the largest temporary is [B, R, S] and never heads × R × S. ``exact``: sums are
    float64 before they are rounded, so that equal keys under equal biases tie, whatever the order of additions.

    query: [B, H, R, d]; key: [B, Hkv, S, d]; bias: [B, 1, R, S]; weight: [B, R]. Returns [B, S] float32.
    """
    heads, kv_heads = query.shape[1], key.shape[1]
    sums = torch.float64 if exact else torch.float32
    received = torch.zeros(key.shape[0], key.shape[2], dtype=sums, device=key.device)
    for head in range(heads):
        head_key = key[:, head * kv_heads // heads].to(sums)
        logits = (query[:, head].to(sums) @ head_key.transpose(1, 2)).float() * scale + bias[:, 0].float()
        received += (weight[:, None, :].to(sums) @ logits.softmax(dim=-1).to(sums))[:, 0]
    return (received / heads).float()


def row_attention(row: Tensor, key: Tensor, bias: Tensor, scale: float) -> Tensor:
    """``received_attention``, exact, for one row of weight 1: all heads at once.

    row: [B, H, d]; key: [B, Hkv, S, d]; bias: [B, 1, S] float32. Returns [B, S] float32.
    """
    grouped = row.double().reshape(len(row), key.shape[1], -1, row.shape[2])  # [B, Hkv, H / Hkv, d]
    logits = (grouped @ key.double().transpose(2, 3)).float() * scale + bias[:, None]
    return logits.softmax(dim=-1).mean(dim=(1, 2), dtype=torch.float64).float()
