"""Ways to choose tokens, and logits to choose them from: for Python and for C++."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asap_export.bundle import GenerationInfo

__all__ = ["WAYS", "SamplingCase", "sampling_cases"]

WAYS: dict[str, GenerationInfo] = {
    "greedy": GenerationInfo(),
    "a penalty": GenerationInfo(repetition_penalty=1.3),
    "a bonus": GenerationInfo(repetition_penalty=0.8),
    "no token twice": GenerationInfo(no_repeat_ngram_size=1),
    "no pair twice": GenerationInfo(no_repeat_ngram_size=2),
    "no three twice": GenerationInfo(no_repeat_ngram_size=3),
    "no early end": GenerationInfo(min_new_tokens=6),
    "all of these": GenerationInfo(repetition_penalty=1.2, no_repeat_ngram_size=2, min_new_tokens=4),
    "warm": GenerationInfo(temperature=1.4),
    "cold": GenerationInfo(temperature=0.1),
    "the three likeliest": GenerationInfo(temperature=2.0, top_k=3),
    "more than there are": GenerationInfo(temperature=1.0, top_k=1000),
    "a nucleus": GenerationInfo(temperature=1.0, top_p=0.7),
    "a tiny nucleus": GenerationInfo(temperature=1.0, top_p=1e-6),
    "at least a tenth": GenerationInfo(temperature=1.0, min_p=0.1),
    "the likeliest alone": GenerationInfo(temperature=1.0, min_p=1.0),
    "all at once": GenerationInfo(6, 2, 0.9, 20, 0.9, 0.05, 1.1, 3),
}


@dataclass(frozen=True)
class SamplingCase:
    """``logits`` [steps, V] of one answer, which may hold -inf; the context may name tokens beyond V."""

    way: str
    seed: int
    context: list[int]
    ends: list[int]
    logits: npt.NDArray[np.float32]


def sampling_cases(steps: int = 12, vocabulary: int = 24) -> list[SamplingCase]:
    """A few of each way, with small vocabularies, in which much is repeated."""
    random = np.random.default_rng(0)
    seeds = (0, 1, 2**31, 2**32 + 5, 2**64 - 1)
    cases = []
    for way in WAYS:
        for seed in seeds:
            logits = random.normal(0, 3, (steps, vocabulary)).astype(np.float32)
            logits[random.random(logits.shape) < 0.05] = -np.inf
            context = random.integers(0, vocabulary + 3, int(random.integers(0, 12))).tolist()
            cases.append(SamplingCase(way, seed, context, [2, 5, vocabulary + 1], logits))
    return cases
