"""Who sees whom: the causal mask, and the salience-guided bidirectional one (SG-BiMask, paper Eq 4)."""

import torch
from torch import Tensor

__all__ = ["causal_bias", "causal_mask", "soft_mask"]

FLOOR = 1e-6  # Eq 4's smallest weight: ln(1e-6) instead of ln(0)


def causal_mask(attention_mask: Tensor, new_tokens: int) -> Tensor:
    """True where a new token may see a cached or new one.

    A padding row sees itself, so that no row of a softmax is empty and no NaN appears; valid rows never
    see padding, so nothing of it reaches them.

    attention_mask: [B, P+T] bool, True for valid tokens; new_tokens: T. Returns [B, 1, T, P+T] bool.
    """
    total = attention_mask.shape[1]
    column = torch.arange(total, device=attention_mask.device)
    row = column[total - new_tokens :, None]
    return (((column <= row) & attention_mask[:, None, :]) | (column == row)).unsqueeze(1)


def causal_bias(attention_mask: Tensor, new_tokens: int) -> Tensor:
    """The causal mask as an additive bias: 0 where it is open, -inf elsewhere.

    attention_mask: [B, P+T] bool; new_tokens: T. Returns [B, 1, T, P+T] float32.
    """
    closed = torch.full((), -torch.inf, device=attention_mask.device)
    return torch.where(causal_mask(attention_mask, new_tokens), torch.zeros_like(closed), closed)


def soft_mask(salience: Tensor, visual_mask: Tensor, attention_mask: Tensor, lambda_max: float) -> Tensor:
    """SG-BiMask: an additive bias on the scoring layer's logits, the same for all heads (Eq 4).

    0 where the causal mask is open; ``ln(max(λ_max·ŝ_j, 1e-6))`` where a visual token looks at a later
    visual token j; -inf elsewhere. The penalty depends on the key alone.

    salience: [B, T] float32; visual_mask: [B, T] bool; attention_mask: [B, P+T] bool.
    Returns [B, 1, T, P+T] float32.
    """
    new_tokens = visual_mask.shape[1]
    past = attention_mask.shape[1] - new_tokens
    penalty = (lambda_max * salience).clamp_min(FLOOR).log()
    penalty = torch.nn.functional.pad(penalty, (past, 0))[:, None, None, :]
    visual_key = torch.nn.functional.pad(visual_mask, (past, 0))[:, None, None, :]
    visible = causal_mask(attention_mask, new_tokens)
    blocked = torch.full((), -torch.inf, device=salience.device)
    softly = torch.where(visual_key & visual_mask[:, None, :, None], penalty, blocked)
    return torch.where(visible, torch.zeros((), device=salience.device), softly)
