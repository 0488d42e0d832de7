"""What ranks a visual token: attention it receives from chosen rows (paper Fig 3; FastV's criterion)."""

import torch
from torch import Tensor

from asap_export.pruning.config import Score

__all__ = ["last_valid_row", "received_attention", "row_weight"]


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


def last_valid_row(attention_mask: Tensor) -> Tensor:
    """Position of each sequence's last valid token. attention_mask: [B, T] bool. Returns [B] int64."""
    position = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return torch.where(attention_mask, position, 0).amax(dim=1)


def received_attention(query: Tensor, key: Tensor, bias: Tensor, weight: Tensor, scale: float) -> Tensor:
    """Attention every key receives: ``Σ_i weight_i · mean_h softmax(q·kᵀ·scale + bias)_ij``.

    One head at a time, so that the largest temporary is [B, R, S] and never heads × R × S.

    query: [B, H, R, d]; key: [B, Hkv, S, d]; bias: [B, 1, R, S]; weight: [B, R]. Returns [B, S] float32.
    """
    heads, kv_heads = query.shape[1], key.shape[1]
    received = torch.zeros(key.shape[0], key.shape[2], device=key.device)
    for head in range(heads):
        head_key = key[:, head * kv_heads // heads].float()
        logits = query[:, head].float() @ head_key.transpose(1, 2) * scale + bias[:, 0].float()
        received += (weight[:, None, :].float() @ logits.softmax(dim=-1))[:, 0]
    return received / heads
