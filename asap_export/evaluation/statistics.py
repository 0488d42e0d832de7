"""How sure a measured accuracy is, and whether one method is ahead of another."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Interval", "mcnemar", "retention_intervals", "wilson"]

Interval = tuple[float, float]

_Z = 1.959963984540054  # of a normal distribution, 95 % lie within so many deviations
_DRAWS = 2000
_AT_ONCE = 100  # draws whose weights are in memory together


def wilson(correct: int, count: int) -> Interval:
    """Wilson's 95 % score interval of a proportion: sensible near 0 and 1 too, unlike the normal one."""
    if not count:
        return 0.0, 1.0
    part, spread = correct / count, _Z**2 / count
    middle = part + spread / 2
    half = _Z * math.sqrt(part * (1 - part) / count + spread / (4 * count))
    low, high = ((middle - half) / (1 + spread), (middle + half) / (1 + spread))
    return (0.0 if correct == 0 else low), (1.0 if correct == count else high)


def mcnemar(wins: int, losses: int) -> float:
    """Two-sided exact p-value of McNemar's test.

    ``wins`` and ``losses`` are the questions that only one of two methods answers right. Were both equally good,
    each would fall to either side like a coin; this is how often coins lie at least this far apart.
    """
    count = wins + losses
    tail = sum(math.comb(count, number) for number in range(min(wins, losses) + 1))
    return float(min(1.0, 2 * tail / 2**count))


def retention_intervals(
    dense: Sequence[int], others: Mapping[str, Sequence[int]], seed: int = 0
) -> dict[str, Interval | None]:
    """95 % percentile interval of each method's accuracy relative to dense, from a paired bootstrap by image.

    ``dense`` and each of ``others`` are right answers per image, in the same order. Images are drawn with
    replacement, all questions of one together, because they are not independent; the same draws serve every
    method. None where dense has no right answer, or a draw of images none.
    """
    rng = np.random.default_rng(seed)
    names, images = list(others), len(dense)
    right = np.array([dense, *others.values()], np.float64).reshape(len(names) + 1, images)
    ratios: list[npt.NDArray[np.float64]] = []
    for _ in range(0, _DRAWS, _AT_ONCE):
        weights = rng.multinomial(images, np.full(images, 1 / images), size=_AT_ONCE)  # [draws, images]
        drawn = weights @ right.T  # [draws, 1 + methods]
        if not drawn[:, 0].all():
            return dict.fromkeys(names)
        ratios.append(drawn[:, 1:] / drawn[:, :1])
    bounds = np.quantile(np.concatenate(ratios), [0.025, 0.975], axis=0)
    return {name: (float(bounds[0, place]), float(bounds[1, place])) for place, name in enumerate(names)}
