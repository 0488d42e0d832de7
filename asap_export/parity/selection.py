"""How clear the reference's choices were: what may fall either way when scores differ by a rounding."""

from dataclasses import dataclass

import torch
from torch import Tensor

from asap_export.model.decoder import Cut
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.consolidation import consolidate, cosines
from asap_export.pruning.topk import kept_positions

__all__ = ["Margins", "decision_margins"]


@dataclass(frozen=True)
class Margins:
    """Distances from a choice to its alternative, the smallest over a batch; infinite where there is none.

    ``cut``: between the last kept and the first dropped score, relative to the largest score; ``merge``:
    between a cosine similarity and the threshold; ``order``: between the saliences of two similar tokens;
    ``salvage``: between the last salvaged and the first passed-over mass, relative to the range of the mass.
    """

    cut: float = torch.inf
    merge: float = torch.inf
    order: float = torch.inf
    salvage: float = torch.inf

    @property
    def smallest(self) -> float:
        return min(self.cut, self.merge, self.order, self.salvage)

    def __str__(self) -> str:
        return ", ".join(
            f"{name} margin {value:.1e}" for name, value in vars(self).items() if value < torch.inf
        )


def decision_margins(cut: Cut, pruning: PruningConfig) -> Margins:
    """Margins of every choice in a cut."""
    rows = [_row_margins(cut, pruning, row) for row in range(cut.hidden.shape[0])]
    names = ("cut", "merge", "order", "salvage")
    return Margins(*(min(getattr(row, name) for row in rows) for name in names))


def _row_margins(cut: Cut, pruning: PruningConfig, row: int) -> Margins:
    visual, score = cut.visual_mask[row], cut.seen.score[row]
    index = kept_positions(cut.seen.score, cut.visual_mask, cut.new_mask, int(cut.kept_length))[row]
    kept = torch.zeros_like(visual)
    kept[index] = True
    scale = float(score[visual].abs().max()) if bool(visual.any()) else 1.0
    at_cut = _gap(score[visual & kept], score[visual & ~kept]) / (scale or 1.0)
    if pruning.method != "asap" or not pruning.merge:
        return Margins(at_cut)
    kept_visual = index[visual[index]]
    hidden, salience = cut.hidden[row, kept_visual].float(), cut.seen.salience[row, kept_visual]
    cosine = cosines(hidden).fill_diagonal_(-2.0)  # farther from any threshold than a pair can be
    merge = float((cosine - pruning.threshold).abs().min()) if len(kept_visual) > 1 else torch.inf
    apart = (salience[:, None] - salience[None, :]).abs()[cosine > pruning.threshold]
    order = float(apart.min()) if apart.numel() else torch.inf
    everyone = torch.ones_like(salience).bool()
    absorbed = consolidate(hidden, everyone, salience, cosine > pruning.threshold).absorbed
    return Margins(
        at_cut, merge, order, _salvage_margin(cut.seen.mass[row], visual, kept, int(absorbed.sum()))
    )


def _salvage_margin(mass: Tensor, visual: Tensor, kept: Tensor, places: int) -> float:
    pool = mass[visual & ~kept].sort(descending=True).values
    if not 0 < places < len(pool):
        return torch.inf
    span = float(mass[visual].max() - mass[visual].min()) or 1.0
    return float(pool[places - 1] - pool[places]) / span


def _gap(inside: Tensor, outside: Tensor) -> float:
    if not inside.numel() or not outside.numel():
        return torch.inf
    return float(inside.min() - outside.max())
