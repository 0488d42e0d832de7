"""A cut, replayed in PyTorch from the numbers that a graph says it had: what it chose must come out again."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from asap_export.pruning.consolidation import MergedRow, cosines, merge_row
from asap_export.pruning.topk import kept_positions

__all__ = ["Replayed", "replay_merge", "replay_topk"]

# A cosine is a sum of float32 products of unit vectors, added in another order by every runtime: so near to the
# threshold, either side is right.
_ROUNDING = 1e-6
_TRIES = 64


class Replayed(NamedTuple):
    """What the reference makes of one AsapMerge: merged [B, K, D], kept_index [B, K] int64, absorbed [B, K]
    bool."""

    merged: Tensor
    kept_index: Tensor
    absorbed: Tensor


def replay_topk(values: Mapping[str, Tensor]) -> Tensor:
    """The index [B, K] that AsapTopK's own inputs lead to."""
    length = int(values["kept_length"])
    return kept_positions(values["score"], values["visual_mask"], values["attention_mask"], length)


def replay_merge(values: Mapping[str, Tensor], threshold: float, limit: float) -> Replayed:
    """What AsapMerge's own inputs lead to.

    values: its inputs and outputs by name, hidden in the graph's dtype. Where cosines lie within a float32
    rounding of the threshold, they are read as the graph's own outputs have it, if any reading leads there;
    merged states may then differ by ``limit`` of their largest value.
    """
    names = ("hidden", "index", "visual_mask", "salience", "mass")
    rows = []
    for row in range(len(values["hidden"])):
        inputs = [values[name][row] for name in names]
        found = MergedRow(*(values[name][row] for name in ("merged", "kept_index", "absorbed")))
        rows.append(_replayed(inputs, threshold, found, limit))
    hidden, kept_index, absorbed = zip(*rows, strict=True)
    return Replayed(torch.stack(hidden), torch.stack(kept_index), torch.stack(absorbed))


def _replayed(inputs: list[Tensor], threshold: float, found: MergedRow, limit: float) -> MergedRow:
    """The first reading of the similarities that leads to ``found``, or the plain one."""
    hidden, index = inputs[:2]
    cosine = cosines(hidden[index])
    plain = merge_row(*_six(inputs, cosine > threshold))
    if _same(plain, found, limit):
        return plain
    for similar in _readings(cosine, threshold, inputs[2][index], found.absorbed):
        other = merge_row(*_six(inputs, similar))
        if _same(other, found, limit):
            return other
    return plain


def _readings(cosine: Tensor, threshold: float, visual: Tensor, absorbed: Tensor) -> Iterator[Tensor]:
    """Ways to see which tokens are similar, [K, K] bool: those near the threshold as the absorbed set [K] tells,
    then with one of these pairs the other way, for a token that two anchors are similar to."""
    near = ((cosine - threshold).abs() <= _ROUNDING) & visual & visual[:, None]
    near.fill_diagonal_(False)
    if absorbed.shape != visual.shape:
        return
    similar = torch.where(near, absorbed[None, :], cosine > threshold)
    yield similar
    for row, column in near.nonzero().tolist()[:_TRIES]:
        other = similar.clone()
        other[row, column] = ~other[row, column]
        yield other


def _six(inputs: list[Tensor], similar: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    hidden, index, visual, salience, mass = inputs
    return hidden, index, visual, salience, mass, similar


def _same(one: MergedRow, other: MergedRow, limit: float) -> bool:
    if not (torch.equal(one.kept_index, other.kept_index) and torch.equal(one.absorbed, other.absorbed)):
        return False
    apart = (one.hidden.float() - other.hidden.float()).abs().max()
    return bool(apart <= limit * one.hidden.float().abs().max())
