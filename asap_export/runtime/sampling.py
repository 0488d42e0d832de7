"""From logits to the next token, as transformers' logits processors and warpers do it, in their order."""

from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from asap_export.bundle import GenerationInfo

__all__ = ["Sampler", "sample"]

Logits = npt.NDArray[np.float32]


class Sampler:
    """Chooses the tokens of one row, one after the other.

    ``context``: all tokens before the first, those of images and of earlier turns too. ``ends``: the tokens that
    end an answer. The same seed draws the same tokens in C++ (engines/cpp/src/sampler.hpp).
    """

    def __init__(
        self, how: GenerationInfo, seed: int, context: Sequence[int] = (), ends: Collection[int] = ()
    ) -> None:
        self._how = how
        self._ends = np.array(sorted(ends), np.int64)
        self._context, self._before = list(context), len(context)
        self._seen = set(context)
        self._repeats = _Repeats(how.no_repeat_ngram_size, self._context)
        # Both halves of a seed count. RandomState's numbers are fixed for good, and are those of std::mt19937.
        self._random = np.random.RandomState((seed ^ seed >> 32) & 0xFFFF_FFFF)

    def next(self, logits: Logits) -> int:
        """The next token by ``logits`` [V], which it may change."""
        how, vocabulary = self._how, len(logits)
        if how.repetition_penalty != 1:
            seen = np.array([token for token in self._seen if token < vocabulary], np.int64)
            penalty, value = np.float32(how.repetition_penalty), logits[seen]
            logits[seen] = np.where(value < 0, value * penalty, value / penalty)
        logits[[token for token in self._repeats.after(self._context) if token < vocabulary]] = -np.inf
        if len(self._context) - self._before < how.min_new_tokens:
            logits[self._ends[self._ends < vocabulary]] = -np.inf
        token = sample(logits, how, self._random)
        self._context.append(token)
        self._seen.add(token)
        self._repeats.learn(self._context)
        return token


class _Repeats:
    """Which tokens would write ``size`` tokens in a row once more; size 0 knows of none."""

    def __init__(self, size: int, context: Sequence[int]) -> None:
        self._size = size
        self._next: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for end in range(size, len(context) + 1) if size else ():
            self.learn(context[end - size : end])

    def learn(self, context: Sequence[int]) -> None:
        """The last tokens of ``context`` have been written."""
        if self._size and len(context) >= self._size:
            *before, last = context[-self._size :]
            self._next[tuple(before)].add(last)

    def after(self, context: Sequence[int]) -> Collection[int]:
        if not self._size:
            return ()
        return self._next.get(tuple(context[len(context) - self._size + 1 :]), ())


def sample(logits: Logits, how: GenerationInfo, random: np.random.RandomState) -> int:
    """The next token from ``logits`` [V]: the likeliest at temperature 0 (the first of equals), else a draw.

    It is drawn from the ``top_k`` likeliest tokens (0: all), of those from the fewest whose probabilities add up
    to ``top_p``, and of those from the ones at least ``min_p`` times as likely as the likeliest.
    """
    most = logits.max()
    if how.temperature == 0 or not np.isfinite(most):
        return int(logits.argmax())
    probability = np.exp((logits - most).astype(np.float64) / how.temperature)
    order = np.argsort(-probability, kind="stable")[: how.top_k or None]
    likeliest = probability[order]
    cumulative = np.cumsum(likeliest)
    count = int(np.searchsorted(cumulative, how.top_p * cumulative[-1])) + 1
    possible = max(how.min_p * likeliest[0], np.nextafter(0, 1))  # never one of probability 0
    count = min(count, int(np.count_nonzero(likeliest >= possible)))
    drawn = np.searchsorted(cumulative[:count], random.random_sample() * cumulative[count - 1], side="right")
    return int(order[min(int(drawn), count - 1)])
