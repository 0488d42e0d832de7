"""Which tokens survive: all text, and the visual tokens with the largest score."""

import torch
from torch import Tensor

__all__ = ["kept_length", "kept_positions"]


def kept_positions(score: Tensor, visual_mask: Tensor, attention_mask: Tensor, kept_length: int) -> Tensor:
    """Positions that survive the cut, ascending. Ties go to the lower position.

    Every sequence of the batch keeps the same number of tokens: it gives up its padding first, then its
    lowest visual tokens.

    score: [B, T] float32; visual_mask, attention_mask: [B, T] bool. Returns [B, kept_length] int64.
    """
    text = attention_mask & ~visual_mask
    priority = score.masked_fill(~visual_mask, -torch.inf).masked_fill(text, torch.inf)
    order = priority.argsort(dim=1, descending=True, stable=True)
    return order[:, :kept_length].sort(dim=1).values


def kept_length(keep: int, visual_mask: Tensor, attention_mask: Tensor) -> int:
    """Length of the sequence after the cut: ``keep`` plus the most text that any sequence of the batch has.

    visual_mask, attention_mask: [B, T] bool. Never more than T; T itself where there is nothing to prune.
    """
    tokens = visual_mask.shape[1]
    if not bool(visual_mask.any()):
        return tokens
    text = int((attention_mask & ~visual_mask).sum(dim=1).max())
    return min(tokens, keep + text)
