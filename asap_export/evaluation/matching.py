"""When an answer counts as right: exact match after a normalisation that forgives form, not content."""

import re
from collections.abc import Iterable

__all__ = ["is_correct", "normalised"]

_SPACES = re.compile(r"\s+")


def normalised(answer: str) -> str:
    """Lower case, runs of white space as one space, without quotes around it and a period or comma at the end.

    "  Top Left. " and "top left" are the same answer; "two" and "2" are not, nor "a cat" and "cat".
    """
    text = _SPACES.sub(" ", answer).strip().lower()
    return text.strip("\"'").rstrip(".,").strip()


def is_correct(found: str, answers: Iterable[str]) -> bool:
    """Whether an answer is one of those that count."""
    return normalised(found) in {normalised(answer) for answer in answers}
