"""Merging near-duplicates (Eq 6) and salvage, for a batch at once: greedy absorption as a fixed point."""

from typing import NamedTuple

import torch
from torch import Tensor

from asap_export.pruning.cut import take_tokens
from asap_export.pruning.device.selection import positions, salvage

__all__ = ["ROUNDS", "Merged", "merge_kept"]

ROUNDS = 16  # redundant tokens settle in a handful
_PARTS = 8  # of the width in the product of a few hundred tokens: too few tiles to fill a GPU otherwise


class Merged(NamedTuple):
    """hidden: [B, K, D]; kept_index: [B, K] int64, ascending; absorbed: [B, K] bool, of the tokens that came in;
    settled: [] bool, whether the rounds were enough. Where not, nothing of it is the method's result; K rounds
    always are."""

    hidden: Tensor
    kept_index: Tensor
    absorbed: Tensor
    settled: Tensor


def merge_kept(
    hidden: Tensor,
    index: Tensor,
    visual_mask: Tensor,
    salience: Tensor,
    mass: Tensor,
    threshold: float,
    rounds: int | None = None,
) -> Merged:
    """``consolidation.merge_kept``, the same arguments, and ``rounds`` of absorption, after which the caller reads
    ``settled``; None goes on until it is settled, and so waits for the device after every 16 of them.

    hidden: [B, T, D]; index: [B, K] int64, ascending; visual_mask: [B, T] bool; salience, mass: [B, T] float32.
    """
    state = take_tokens(hidden, index).float()
    weight, visual = salience.gather(1, index), visual_mask.gather(1, index)
    precedes = _precedence(weight)
    pairs = visual[:, :, None] & visual[:, None, :]
    may_absorb = (_cosine(state) > threshold) & precedes & pairs
    stays, settled = _greedy(may_absorb, rounds)
    merged = _averages(state, weight, may_absorb & stays[:, :, None], precedes.sum(dim=1))

    nobody = torch.zeros_like(visual_mask)
    was_kept = nobody.scatter(1, index, torch.ones_like(stays))
    was_absorbed = nobody.scatter(1, index, ~stays)
    chosen = salvage(mass, visual_mask & ~was_kept, was_absorbed)
    kept_index = positions((was_kept & ~was_absorbed) | chosen, index.shape[1])

    slots = torch.arange(index.shape[1], device=index.device).expand_as(index)
    slot = torch.zeros_like(visual_mask, dtype=torch.int64).scatter(1, index, slots).gather(1, kept_index)
    own = take_tokens(hidden, kept_index)
    stayed = (was_kept & ~was_absorbed).gather(1, kept_index)
    final = torch.where(stayed[:, :, None], take_tokens(merged.to(hidden.dtype), slot), own)
    return Merged(final, kept_index, ~stays, settled)


def _cosine(state: Tensor) -> Tensor:
    """Similarity of all pairs, [B, K, K]. state: [B, K, D] float32."""
    unit = torch.nn.functional.normalize(state, dim=-1)
    parts = _PARTS if state.shape[2] % _PARTS == 0 else 1
    split = unit.reshape(*unit.shape[:2], parts, -1).transpose(1, 2)  # [B, parts, K, D / parts]
    return (split @ split.transpose(2, 3)).sum(dim=1)


def _precedence(salience: Tensor) -> Tensor:
    """Whether i comes before j: the more salient, of equals the lower, [B, K, K] bool. salience: [B, K]."""
    slot = torch.arange(salience.shape[1], device=salience.device)
    one, other = salience[:, :, None], salience[:, None, :]
    return (one > other) | ((one == other) & (slot[:, None] < slot))


def _greedy(may_absorb: Tensor, rounds: int | None) -> tuple[Tensor, Tensor]:
    """Who stays: a token that no staying one may absorb. may_absorb: [B, K, K] bool.

    Each round settles at least the next token in order of precedence. Returns [B, K] bool, and [] bool: whether
    the last round changed nothing.
    """
    absorbs = may_absorb.float()
    stays = before = torch.ones_like(absorbs[:, :1])
    while True:
        for _ in range(ROUNDS if rounds is None else rounds):
            before, stays = stays, ((stays @ absorbs) == 0).float()
        settled = (stays == before).all()
        if rounds is not None or bool(settled):
            return stays[:, 0] > 0, settled


def _averages(state: Tensor, weight: Tensor, candidate: Tensor, rank: Tensor) -> Tensor:
    """States after Eq 6. A token belongs to the first anchor in order of precedence that may absorb it; an anchor
    without company, or where all weights are 0, keeps its own state.

    state: [B, K, D] float32; weight: [B, K]; candidate: [B, K, K] bool, anchors in rows; rank: [B, K] int64.
    """
    last = rank.shape[1]
    first = torch.where(candidate, rank[:, :, None], last).amin(dim=1, keepdim=True)
    owns = candidate & (rank[:, :, None] == first)
    share = owns * weight[:, None, :]
    total = weight + share.sum(dim=2)
    averages = owns.any(dim=2) & (total > 0)
    mean = (weight[:, :, None] * state + share @ state) / torch.where(averages, total, 1.0)[:, :, None]
    return torch.where(averages[:, :, None], mean, state)
