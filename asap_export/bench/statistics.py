"""Many samples as five numbers, and ratios between contenders measured in the same rounds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["ratio", "spread"]


def spread(samples: Sequence[float]) -> dict[str, Any] | None:
    """Median, range and quartiles of samples, and their number; None of none."""
    if not samples:
        return None
    lowest, first, median, third, highest = np.quantile(samples, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return {
        "median": median,
        "min": lowest,
        "max": highest,
        "quartiles": [first, third],
        "samples": len(samples),
    }


def ratio(dividends: Sequence[float], divisors: Sequence[float]) -> dict[str, Any] | None:
    """The ratio of two medians, and the range of the ratios within each round; None where either has no
    samples."""
    if not dividends or not divisors:
        return None
    paired = [dividend / divisor for dividend, divisor in zip(dividends, divisors, strict=False)]
    median = float(np.median(dividends) / np.median(divisors))
    return {"ratio": median, "min": min(paired), "max": max(paired)}
