"""Intervals and tests against known values and by their properties."""

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap_export.evaluation.statistics import mcnemar, retention_intervals, wilson


@pytest.mark.parametrize(
    ("correct", "count", "bounds"),
    [
        (0, 10, (0.0, 0.2775)),  # Wilson 1927; the values are those of statsmodels' proportion_confint
        (5, 10, (0.2366, 0.7634)),
        (81, 263, (0.2553, 0.3662)),  # Newcombe 1998, table I
        (15, 148, (0.0624, 0.1605)),
        (1, 29, (0.0061, 0.1718)),
        (29, 29, (0.8830, 1.0)),
    ],
)
def test_wilson_gives_published_bounds(correct, count, bounds):
    assert wilson(correct, count) == pytest.approx(bounds, abs=6e-5)


@given(count=st.integers(1, 5000), data=st.data())
def test_wilson_holds_the_proportion_and_narrows(count, data):
    correct = data.draw(st.integers(0, count))
    low, high = wilson(correct, count)
    assert 0 <= low <= correct / count <= high <= 1
    many = wilson(4 * correct, 4 * count)
    assert many[1] - many[0] < high - low


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 5) == 2 / 2**5
    assert mcnemar(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert mcnemar(5, 5) == 1.0
    assert 0 < mcnemar(400, 900) < 1e-30


@given(wins=st.integers(0, 300), losses=st.integers(0, 300))
def test_mcnemar_is_a_symmetric_probability(wins, losses):
    p = mcnemar(wins, losses)
    assert 0 < p <= 1 and p == mcnemar(losses, wins)
    if wins > losses:
        assert mcnemar(wins + 1, losses) <= p
        assert p >= comb(wins + losses, losses) / 2 ** (wins + losses)


def test_retention_of_dense_itself_is_certain_and_a_method_with_half_of_it_is_not():
    dense = [4, 3, 4, 2, 4, 4, 1, 3] * 5
    half = [2, 2, 2, 1, 2, 1, 1, 2] * 5
    found = retention_intervals(dense, {"dense": dense, "half": half})
    assert found["dense"] == (1.0, 1.0)
    assert found["half"] is not None
    low, high = found["half"]
    assert 0.4 < low < sum(half) / sum(dense) < high < 0.65
    assert retention_intervals(dense, {"half": half}) == {"half": found["half"]}  # seeded


def test_retention_of_nothing_is_unknown():
    assert retention_intervals([0, 0], {"asap": [1, 0]}) == {"asap": None}
