"""Choosing tokens by counting: lengths are given by the host, and what is chosen stays on the device."""

import torch
from torch import Tensor

__all__ = ["positions", "salvage"]


def positions(chosen: Tensor, length: int) -> Tensor:
    """Where ``chosen`` [B, T] bool is True, ascending, [B, length] int64; each row has ``length`` of them."""
    batch, tokens = chosen.shape
    place = torch.arange(tokens, device=chosen.device).expand(batch, -1)
    slot = torch.where(chosen, chosen.cumsum(dim=1) - 1, length)  # the others share a slot that is cut off
    return torch.zeros_like(place[:, : length + 1]).scatter(1, slot, place)[:, :length]


def salvage(mass: Tensor, pool: Tensor, absorbed: Tensor) -> Tensor:
    """Who takes the places of the absorbed tokens: ``consolidation.salvage`` for a batch.

    One stable sort for both groups: a token's turn is its rank by mass within its own group, and the absorbed
    come after all of the pool. mass: [B, T] float32; pool, absorbed: [B, T] bool, disjoint. Returns [B, T] bool.
    """
    order = mass.argsort(dim=1, descending=True, stable=True)
    in_pool, was_absorbed = pool.gather(1, order), absorbed.gather(1, order)
    first = in_pool.cumsum(dim=1)
    second = was_absorbed.cumsum(dim=1) + pool.sum(dim=1, keepdim=True)
    turn = torch.where(in_pool, first, second)
    chosen = (in_pool | was_absorbed) & (turn <= absorbed.sum(dim=1, keepdim=True))
    return torch.zeros_like(chosen).scatter(1, order, chosen)
