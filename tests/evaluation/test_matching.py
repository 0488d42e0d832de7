"""Which answers are the same."""

import pytest

from asap_export.evaluation.matching import is_correct


@pytest.mark.parametrize(
    "said", ["top left", " Top left.", "TOP  LEFT", '"top left"', "top left,", "'top\nleft.'"]
)
def test_form_is_forgiven(said):
    assert is_correct(said, ["top left"])


@pytest.mark.parametrize("said", ["", "left", "top left corner", "top-left", "the top left"])
def test_content_is_not(said):
    assert not is_correct(said, ["top left"])


def test_any_of_several_answers_counts():
    assert is_correct("Two", ["2", "two"]) and not is_correct("2.0", ["2", "two"])
    assert is_correct("3.5.", ["3.5"])
