"""The attention shift as numbers: how much a score follows a patch's place instead of what it shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Mean", "average_ranks", "mean_of", "raster_correlation", "spearman", "third_means"]

Values = npt.NDArray[Any]


def average_ranks(values: Values) -> npt.NDArray[np.float64]:
    """Ranks 1 to n of ``values`` [n]; equal ones share the mean of their places. Returns [n] float64."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = sizes.cumsum()
    return (last - (sizes - 1) / 2)[group]


def spearman(values: Values, others: Values) -> float | None:
    """Spearman's rank correlation of two series [n], in [-1, 1]: Pearson's, of average ranks.

    None where it has no meaning: fewer than two values, or one series constant.
    """
    first, second = (ranks - ranks.mean() for ranks in (average_ranks(values), average_ranks(others)))
    scale = float(np.sqrt((first @ first) * (second @ second)))
    return max(-1.0, min(1.0, float(first @ second) / scale)) if scale else None


def raster_correlation(score: Values) -> float | None:
    """Rank correlation of a view's scores [rows, columns] with their place in raster order.

    1: the later a patch, the higher its score; -1: the earlier; 0: its place says nothing.
    """
    flat = score.reshape(-1)
    return spearman(flat, np.arange(len(flat)))


def third_means(score: Values) -> tuple[float, float, float] | None:
    """Mean score of a view's upper, middle and lower third of rows, as multiples of the view's mean.

    score: [rows, columns]. None where there are fewer than three rows, or the mean is no positive number.
    """
    mean = float(score.mean()) if score.size else 0.0
    if len(score) < 3 or not mean > 0:
        return None
    upper, middle, lower = (float(rows.mean()) / mean for rows in np.array_split(score, 3))
    return upper, middle, lower


@dataclass(frozen=True)
class Mean:
    """Mean and standard deviation of ``count`` numbers; no deviation of one alone."""

    mean: float
    deviation: float | None
    count: int


def mean_of(numbers: Sequence[float | None]) -> Mean | None:
    """Of the numbers that are there; None where none is."""
    known = [number for number in numbers if number is not None]
    return Mean(fmean(known), stdev(known) if len(known) > 1 else None, len(known)) if known else None
