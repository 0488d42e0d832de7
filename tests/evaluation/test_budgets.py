"""Budgets as parts of what a picture has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap_export.errors import UserError
from asap_export.evaluation.budgets import parse_budgets
from asap_export.pruning.flops import layer_average


def test_the_three_forms():
    assert [
        budget.keep_for(900, layers=12, prune_after=2) for budget in parse_budgets("33.3%,keep=40,keep=10%")
    ] == [
        round((0.333 * 12 - 2) / 10 * 900),
        40,
        90,
    ]


@given(
    visual=st.integers(5, 3000),  # so many that the budget is one token or more
    layers=st.integers(4, 40),
    percent=st.integers(60, 100),
    after=st.integers(1, 2),
)
def test_a_layer_average_is_met_to_half_a_token_behind_the_cut(visual, layers, percent, after):
    [budget] = parse_budgets(f"{percent}%")
    budget.check("asap", 3000, layers, after)
    found = layer_average(visual, budget.keep_for(visual, layers, after), layers, after)
    assert abs(found - percent / 100 * visual) <= 0.5 * (layers - after) / layers + 1e-6


@given(visual=st.integers(1, 3000), layers=st.integers(3, 40), percent=st.floats(0.1, 100))
def test_a_budget_passes_just_where_the_largest_image_reaches_it(visual, layers, percent):
    [budget] = parse_budgets(f"{percent}%")
    reached = percent / 100 >= layer_average(visual, 1, layers, 2) / visual - 1e-12
    try:
        budget.check("asap", visual, layers, 2)
    except UserError:
        assert not reached or percent / 100 == pytest.approx(layer_average(visual, 1, layers, 2) / visual)
    else:
        assert reached


def test_a_budget_that_layers_before_the_cut_exceed_is_refused_with_the_least_that_is_not():
    [budget] = parse_budgets("22.2%")
    said = "at least 25.1% for asap, found 22.2%: 2 of 8 layers see every visual token"
    with pytest.raises(UserError, match=said):
        budget.check("asap", 1000, layers=8, prune_after=2)
    budget.check("asap:prune_after=1", 1000, layers=8, prune_after=1)


@pytest.mark.parametrize(
    "text", ["", "half", "120%", "0%", "keep=", "keep=0", "keep=-1", "keep=1.5", "40", "x%"]
)
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(UserError, match=r"like 22\.2%.*, found"):
        parse_budgets(text)


def test_a_budget_given_twice_is_refused():
    with pytest.raises(UserError, match="found 30% twice"):
        parse_budgets("30%,30%")
