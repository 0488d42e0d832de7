"""Merging near-duplicates among the kept tokens, and refilling their places (paper Eq 6 and "salvage")."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Consolidation", "MergedRow", "consolidate", "cosines", "merge_kept", "merge_row", "salvage"]


class Consolidation(NamedTuple):
    """Merged hidden states [K, D] float32, which of the K tokens were absorbed [K] bool, and by whom.

    anchor: [K] int64, the place among the K of the token that absorbed each; its own where none did.
    """

    hidden: Tensor
    absorbed: Tensor
    anchor: Tensor


class MergedRow(NamedTuple):
    """One sequence after the cut: hidden [K, D], kept_index [K] int64, ascending, and which of the tokens that
    came in were absorbed, [K] bool."""

    hidden: Tensor
    kept_index: Tensor
    absorbed: Tensor


def cosines(hidden: Tensor) -> Tensor:
    """Cosine similarity of all pairs, [K, K] float32. hidden: [K, D]."""
    unit = torch.nn.functional.normalize(hidden.float(), dim=-1)
    return unit @ unit.T


def consolidate(hidden: Tensor, visual_mask: Tensor, salience: Tensor, similar: Tensor) -> Consolidation:
    """Greedy weighted averaging (Eq 6) over the kept tokens of one sequence.

    In descending salience (ties: lower position first) each visual token that is not yet absorbed becomes an
    anchor and absorbs every later, not yet absorbed one that is ``similar``. Where all weights of a group are 0,
    its anchor keeps its own state. All tokens are looked at together: a loop would wait for a GPU at each.

    hidden: [K, D]; visual_mask: [K] bool; salience: [K] float32; similar: [K, K] bool, whose cosine similarity
    exceeds the threshold.
    """
    hidden = hidden.float()
    order = salience.argsort(descending=True, stable=True)
    rank = order.argsort()
    may_absorb = similar & visual_mask[:, None] & visual_mask & (rank[:, None] < rank)
    stays = _staying(may_absorb)
    absorbs = may_absorb & stays[:, None]
    first = (absorbs[order].cumsum(dim=0) == 0).sum(dim=0)  # rank of the first anchor; K where there is none
    owns = absorbs & (rank[:, None] == first)
    share = owns * salience
    total = salience + share.sum(dim=1)
    averages = owns.any(dim=1) & (total > 0)
    mean = (salience[:, None] * hidden + share @ hidden) / torch.where(averages, total, 1.0)[:, None]
    merged = torch.where(averages[:, None], mean, hidden)
    anchor = torch.where(stays, rank, first)
    return Consolidation(merged, ~stays, order[anchor])


def _staying(may_absorb: Tensor) -> Tensor:
    """Who is an anchor or alone, [K] bool: whom none of them may absorb. may_absorb: [K, K] bool.

    A round settles at least the next token in the order of salience, and nearly always many: redundant tokens are
    settled in a handful of rounds.
    """
    stays = may_absorb.new_ones(len(may_absorb))
    while True:
        before, stays = stays, ~(may_absorb & stays[:, None]).any(dim=0)
        if torch.equal(before, stays):
            return stays


def salvage(mass: Tensor, pool: Tensor, absorbed: Tensor) -> Tensor:
    """Who takes the places of the absorbed tokens of one sequence: those with the largest raw mass ``s_j``.

    The pruned ``pool`` comes first; where it is too small, absorbed tokens come back, with their own hidden
    state. Ties go to the lower position.

    mass: [T] float32; pool, absorbed: [T] bool. Returns [T] bool with as many True as ``absorbed`` has.
    """
    places = int(absorbed.sum())
    by_mass = mass.argsort(descending=True, stable=True)
    candidates = torch.cat([by_mass[pool[by_mass]], by_mass[absorbed[by_mass]]])
    chosen = torch.zeros_like(pool)
    chosen[candidates[:places]] = True
    return chosen


def merge_row(
    hidden: Tensor, index: Tensor, visual_mask: Tensor, salience: Tensor, mass: Tensor, similar: Tensor
) -> MergedRow:
    """Consolidation and salvage for one sequence; hidden: [T, D]; index: [K] int64; the others: [T];
    similar: [K, K] bool."""
    merged = consolidate(hidden[index], visual_mask[index], salience[index], similar)
    survives = torch.zeros_like(visual_mask)
    survives[index] = True
    gone = torch.zeros_like(survives)
    gone[index[merged.absorbed]] = True
    refill = salvage(mass, visual_mask & ~survives, gone)
    state = hidden.clone()
    stays = ~merged.absorbed
    state[index[stays]] = merged.hidden[stays].to(hidden.dtype)
    position = ((survives & ~gone) | refill).nonzero()[:, 0]
    return MergedRow(state[position], position, merged.absorbed)


def merge_kept(
    hidden: Tensor, index: Tensor, visual_mask: Tensor, salience: Tensor, mass: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Consolidation and salvage for a batch: the sequence that the layers after the cut see.

    hidden: [B, T, D], the scoring layer's output; index: [B, K] int64, the kept positions, ascending;
    visual_mask: [B, T] bool; salience, mass: [B, T] float32.
    Returns the new hidden states [B, K, D] in hidden's dtype, their positions [B, K] int64, ascending, and
    which of the tokens at ``index`` were absorbed [B, K] bool.
    """
    inputs = zip(hidden, index, visual_mask, salience, mass, strict=True)
    rows = [merge_row(*row, cosines(row[0][row[1]]) > threshold) for row in inputs]
    states, positions, absorbed = zip(*rows, strict=True)
    return torch.stack(states), torch.stack(positions), torch.stack(absorbed)
