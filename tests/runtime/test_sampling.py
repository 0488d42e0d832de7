"""Drawing the next token."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from asap_export.runtime.sampling import sample

LOGITS = arrays(np.float32, st.integers(1, 40), elements=st.floats(-30, 30, width=32))


def drawn(logits: np.ndarray, temperature: float, top_p: float, seed: int = 0) -> int:
    return sample(logits, temperature, top_p, np.random.default_rng(seed))


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
    generator = np.random.default_rng(0)
    counts = np.bincount([sample(logits, 1.0, 1.0, generator) for _ in range(4000)])
    np.testing.assert_allclose(counts / 4000, [0.5, 0.3, 0.2], atol=0.03)


def test_tokens_ruled_out_are_never_drawn() -> None:
    logits = np.array([-np.inf, 0.0, -np.inf, 0.0], np.float32)
    assert {drawn(logits, 2.0, 1.0, seed) for seed in range(50)} == {1, 3}
