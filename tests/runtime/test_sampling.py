"""Choosing the next token, as transformers does."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sampling_cases import WAYS, SamplingCase, sampling_cases
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from asap_export.bundle import GenerationInfo
from asap_export.runtime.sampling import Sampler, sample

LOGITS = arrays(np.float32, st.integers(1, 40), elements=st.floats(-30, 30, width=32))


def drawn(logits: np.ndarray, temperature: float, top_p: float, seed: int = 0) -> int:
    how = GenerationInfo(temperature=temperature, top_p=top_p)
    return sample(logits, how, np.random.RandomState(seed))


@given(LOGITS, st.integers(0, 9))
def test_greedy_takes_the_likeliest_and_the_first_of_equals(logits, seed) -> None:
    assert drawn(logits, 0, 1.0, seed) == int(np.flatnonzero(logits == logits.max())[0])
    assert logits[drawn(logits, 0.7, 1e-9, seed)] > logits.max() - 1e-6  # as likely, in float32


@given(LOGITS, st.floats(0.05, 5), st.floats(0.01, 1), st.integers(0, 99))
def test_draws_stay_in_the_smallest_set_that_holds_top_p(logits, temperature, top_p, seed) -> None:
    token = drawn(logits, temperature, top_p, seed)
    probability = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    probability /= probability.sum()
    likelier = probability[probability > probability[token]].sum()
    assert likelier < top_p + 1e-9


def test_draws_follow_the_distribution() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    random = np.random.RandomState(0)
    counts = np.bincount([sample(logits, GenerationInfo(temperature=1.0), random) for _ in range(4000)])
    np.testing.assert_allclose(counts / 4000, [0.5, 0.3, 0.2], atol=0.03)


def test_tokens_ruled_out_are_never_drawn() -> None:
    logits = np.array([-np.inf, 0.0, -np.inf, 0.0], np.float32)
    assert {drawn(logits, 2.0, 1.0, seed) for seed in range(50)} == {1, 3}


def test_a_seed_draws_the_same_again_and_both_its_halves_count() -> None:
    def tokens(seed: int) -> list[int]:
        sampler = Sampler(GenerationInfo(temperature=1.0), seed)
        return [sampler.next(np.zeros(1000, np.float32)) for _ in range(5)]

    assert tokens(7) == tokens(7)
    assert len({tuple(tokens(seed)) for seed in (0, 1, 2**33, 2**34, 2**63)}) == 5


def processors(how: GenerationInfo, case: SamplingCase) -> LogitsProcessorList:
    """transformers' own, in the order of its ``generate``."""
    found = LogitsProcessorList()
    if how.repetition_penalty != 1:
        found.append(RepetitionPenaltyLogitsProcessor(how.repetition_penalty))
    if how.no_repeat_ngram_size:
        found.append(NoRepeatNGramLogitsProcessor(how.no_repeat_ngram_size))
    if how.min_new_tokens:
        ends = [end for end in case.ends if end < case.logits.shape[1]]
        found.append(
            MinNewTokensLengthLogitsProcessor(len(case.context), how.min_new_tokens, ends, device="cpu")
        )
    if how.temperature:
        found.append(TemperatureLogitsWarper(how.temperature))
        if how.top_k:
            found.append(TopKLogitsWarper(how.top_k))
        if how.top_p < 1:
            found.append(TopPLogitsWarper(how.top_p))
        if how.min_p:
            found.append(MinPLogitsWarper(how.min_p))
    return found


@pytest.mark.parametrize("way", WAYS)
def test_tokens_are_those_that_transformers_leaves(way: str) -> None:
    """Greedy the same token; drawn, one of those that its processors leave."""
    how = WAYS[way]
    for case in (case for case in sampling_cases() if case.way == way):
        context = [token for token in case.context if token < case.logits.shape[1]]  # it takes no others
        theirs = processors(how, SamplingCase(way, case.seed, context, case.ends, case.logits))
        sampler = Sampler(how, case.seed, context, case.ends)
        for row in case.logits:
            ids = torch.tensor([context], dtype=torch.int64)
            left = theirs(ids, torch.from_numpy(row.copy())[None])[0]
            token = sampler.next(row.copy())
            if how.temperature == 0:
                assert token == int(left.argmax())
            else:
                assert torch.isfinite(left[token])
            context.append(token)


@pytest.mark.parametrize("way", [way for way, how in WAYS.items() if how.temperature])
def test_draws_are_as_frequent_as_transformers_says(way: str) -> None:
    how = WAYS[way]
    case = next(case for case in sampling_cases(steps=1) if case.way == way)
    context = [token for token in case.context if token < case.logits.shape[1]]
    theirs = processors(how, SamplingCase(way, 0, context, case.ends, case.logits))
    left = theirs(torch.tensor([context], dtype=torch.int64), torch.from_numpy(case.logits.copy()))
    expected = torch.softmax(left[0].double(), dim=0).numpy()
    tokens = [Sampler(how, seed, context, case.ends).next(case.logits[0].copy()) for seed in range(3000)]
    found = np.bincount(tokens, minlength=len(expected)) / len(tokens)
    np.testing.assert_allclose(found, expected, atol=0.04)
