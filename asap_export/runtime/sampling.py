"""From logits to the next token."""

import numpy as np
import numpy.typing as npt

__all__ = ["sample"]


def sample(
    logits: npt.NDArray[np.float32], temperature: float, top_p: float, generator: np.random.Generator
) -> int:
    """The next token from ``logits`` [V]: the likeliest at temperature 0 (the first of equals), else a draw
    from the smallest set of likeliest tokens whose probabilities reach ``top_p``."""
    if temperature == 0:
        return int(logits.argmax())
    scaled = (logits - logits.max()).astype(np.float64) / temperature
    probability = np.exp(scaled)
    probability /= probability.sum()
    order = np.argsort(-probability, kind="stable")
    cumulative = np.cumsum(probability[order])
    count = int(np.searchsorted(cumulative, top_p * cumulative[-1])) + 1
    drawn = np.searchsorted(cumulative[:count], generator.random() * cumulative[count - 1], side="right")
    return int(order[min(int(drawn), count - 1)])
