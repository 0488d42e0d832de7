"""Who sees whom without the matrix: the causal mask and SG-BiMask (Eq 4) as two numbers for each key."""

from typing import NamedTuple

import torch
from torch import Tensor

from asap_export.pruning.mask import FLOOR

__all__ = ["KeyBias", "causal_bias", "soft_bias"]


class KeyBias(NamedTuple):
    """An additive bias on logits, the same for all heads; a token always sees itself, whatever is said here.

    before: [B, S] float32, what rows from a key's own on add to it: 0, or -inf for padding; after: [B, S] float32,
    what earlier rows add, those that are ``opened`` [B, T] bool; the other rows add -inf.
    """

    before: Tensor
    after: Tensor
    opened: Tensor

    def rows(self, row: Tensor) -> Tensor:
        """The matrix's rows ``row`` [B, R] int64, places among the new tokens; [B, 1, R, S] float32."""
        total = self.before.shape[1]
        column = torch.arange(total, device=row.device)
        place = (row + total - self.opened.shape[1])[:, :, None]
        after = self.after[:, None].masked_fill(~self.opened.gather(1, row)[:, :, None], -torch.inf)
        bias = torch.where(column <= place, self.before[:, None], after)
        return bias.masked_fill(column == place, 0.0)[:, None]

    def matrix(self) -> Tensor:
        """All of it, [B, 1, T, S] float32."""
        batch, tokens = self.opened.shape
        return self.rows(torch.arange(tokens, device=self.opened.device).expand(batch, -1))


def causal_bias(visual_mask: Tensor, attention_mask: Tensor) -> KeyBias:
    """Nothing behind a token is seen. visual_mask: [B, T] bool; attention_mask: [B, P+T] bool."""
    before = torch.zeros(attention_mask.shape, device=attention_mask.device)
    before = before.masked_fill(~attention_mask, -torch.inf)
    return KeyBias(before, torch.full_like(before, -torch.inf), torch.zeros_like(visual_mask))


def soft_bias(salience: Tensor, visual_mask: Tensor, attention_mask: Tensor, lambda_max: float) -> KeyBias:
    """SG-BiMask: visual tokens see later visual ones at ``ln(max(λ_max·ŝ_j, 1e-6))``.

    salience: [B, T] float32; visual_mask: [B, T] bool, False for padding; attention_mask: [B, P+T] bool.
    """
    causal = causal_bias(visual_mask, attention_mask)
    past = attention_mask.shape[1] - visual_mask.shape[1]
    penalty = (lambda_max * salience).clamp_min(FLOOR).log().masked_fill(~visual_mask, -torch.inf)
    after = torch.nn.functional.pad(penalty, (past, 0), value=-torch.inf)
    return causal._replace(after=after, opened=visual_mask)
