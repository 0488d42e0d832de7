import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from asap_export.explain.shift import average_ranks, mean_of, raster_correlation, spearman, third_means

series = stn.arrays(np.float64, st.integers(2, 30), elements=st.integers(-5, 5).map(float))
pairs = st.integers(2, 30).flatmap(
    lambda n: st.tuples(*[stn.arrays(np.float64, n, elements=st.integers(-5, 5).map(float))] * 2)
)


@given(series)
def test_ties_share_the_mean_of_their_places(values):
    places = np.argsort(np.argsort(values, kind="stable"), kind="stable") + 1
    expected = [places[values == value].mean() for value in values]
    np.testing.assert_allclose(average_ranks(values), expected)


@given(pairs)
def test_spearman_is_symmetric_bounded_and_blind_to_what_keeps_the_order(pair):
    values, others = pair
    found = spearman(values, others)
    if found is None:
        assert len(set(values)) == 1 or len(set(others)) == 1
        return
    assert -1 <= found <= 1
    assert found == pytest.approx(spearman(others, values))
    assert found == pytest.approx(spearman(np.exp(values), others))
    assert found == pytest.approx(-spearman(-values, others))
    assert spearman(values, values) == pytest.approx(1)


def test_spearman_of_an_example_with_a_tie():
    # differences of ranks 0.5, -0.5, -1, 1 around means of 2.5: 4.5 - 1.25 against sqrt(4.5 * 5)
    assert spearman(np.array([1, 1, 2, 3]), np.array([1, 2, 4, 3])) == pytest.approx(3.5 / np.sqrt(4.5 * 5))


def test_place_in_raster_order():
    rising = np.arange(12.0).reshape(3, 4)
    assert raster_correlation(rising) == pytest.approx(1)
    assert raster_correlation(-rising) == pytest.approx(-1)
    assert raster_correlation(np.ones((3, 4))) is None
    assert raster_correlation(np.ones((1, 1))) is None


def test_thirds_of_the_rows_around_the_mean():
    assert third_means(np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])) == pytest.approx((0.5, 1, 1.5))
    assert third_means(np.ones((2, 5))) is None


def test_means_pass_over_what_is_not_there():
    found = mean_of([1.0, None, 3.0])
    assert (
        found is not None and (found.mean, found.count) == (2, 2) and found.deviation == pytest.approx(2**0.5)
    )
    assert mean_of([None]) is None and mean_of([]) is None
    assert mean_of([1.5]).deviation is None
