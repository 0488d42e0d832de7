"""Merging near-duplicates among the kept tokens, and refilling their places (paper Eq 6 and "salvage")."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Consolidation", "consolidate", "merge_kept", "salvage"]


class Consolidation(NamedTuple):
    """Merged hidden states [K, D] float32, which of the K tokens were absorbed [K] bool, and by whom.

    anchor: [K] int64, the place among the K of the token that absorbed each; its own where none did.
    """

    hidden: Tensor
    absorbed: Tensor
    anchor: Tensor


def consolidate(hidden: Tensor, visual_mask: Tensor, salience: Tensor, threshold: float) -> Consolidation:
    """Greedy weighted averaging (Eq 6) over the kept tokens of one sequence.

    In descending salience (ties: lower position first) each visual token that is not yet absorbed becomes an
    anchor and absorbs every later, not yet absorbed one whose cosine similarity exceeds ``threshold``.

    hidden: [K, D]; visual_mask: [K] bool; salience: [K] float32.
    """
    hidden = hidden.float()
    unit = torch.nn.functional.normalize(hidden, dim=-1)
    similar = (unit @ unit.T) > threshold
    order = salience.argsort(descending=True, stable=True)
    free = visual_mask.clone()  # neither an anchor nor absorbed yet
    absorbed = torch.zeros_like(visual_mask)
    absorber = torch.arange(len(hidden), device=hidden.device)
    merged = hidden.clone()
    for anchor in order[visual_mask[order]].tolist():
        if absorbed[anchor]:
            continue
        free[anchor] = False
        group = similar[anchor] & free
        free &= ~group
        absorbed |= group
        absorber[group] = anchor
        total = salience[anchor] + salience[group].sum()
        if group.any() and total > 0:
            merged[anchor] = (salience[anchor] * hidden[anchor] + salience[group] @ hidden[group]) / total
    return Consolidation(merged, absorbed, absorber)


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


def merge_kept(
    hidden: Tensor, index: Tensor, visual_mask: Tensor, salience: Tensor, mass: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Consolidation and salvage for a batch: the sequence that the layers after the cut see.

    hidden: [B, T, D], the scoring layer's output; index: [B, K] int64, the kept positions, ascending;
    visual_mask: [B, T] bool; salience, mass: [B, T] float32.
    Returns the new hidden states [B, K, D] in hidden's dtype, their positions [B, K] int64, ascending, and
    which of the tokens at ``index`` were absorbed [B, K] bool.
    """
    states, positions, absorbed = [], [], []
    for row in range(hidden.shape[0]):
        kept = index[row]
        visual = visual_mask[row, kept]
        merged = consolidate(hidden[row, kept], visual, salience[row, kept], threshold)
        survives = torch.zeros_like(visual_mask[row])
        survives[kept] = True
        gone = torch.zeros_like(survives)
        gone[kept[merged.absorbed]] = True
        refill = salvage(mass[row], visual_mask[row] & ~survives, gone)
        state = hidden[row].clone()
        stays = kept[~merged.absorbed]
        state[stays] = merged.hidden[~merged.absorbed].to(hidden.dtype)
        position = ((survives & ~gone) | refill).nonzero()[:, 0]
        states.append(state[position])
        positions.append(position)
        absorbed.append(merged.absorbed)
    return torch.stack(states), torch.stack(positions), torch.stack(absorbed)
