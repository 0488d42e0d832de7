"""The line that ends a run."""

import pytest

from asap_export.cli.run import answer_line
from asap_export.runtime.request import Answer, Timings


def answer(visual: int, kept: int, first: float, decode: tuple[float, ...]) -> Answer:
    timings = Timings(first / 4, first / 4, first / 4, first / 4, decode)
    return Answer("2", (7,) * (1 + len(decode)), visual, kept, (), "end", timings)


@pytest.mark.parametrize(
    ("given", "prunes", "line"),
    [
        (
            (922, 154, 0.06, (0.03, 0.034)),
            True,
            "154 of 922 visual tokens, first token 0.06 s, 31 tokens/s, cpu",
        ),
        ((0, 0, 0.04, (0.25,)), True, "no image, first token 0.04 s, 4.0 tokens/s, cpu"),
        ((268, 268, 1.0, ()), True, "all 268 visual tokens fit, first token 1.0 s, cpu"),
        (
            (2928, 2928, 14.8, (2.5,)),
            False,
            "2,928 visual tokens (dense), first token 15 s, 0.4 tokens/s, cpu",
        ),
    ],
)
def test_it_says_tokens_times_and_provider(given: tuple, prunes: bool, line: str) -> None:
    assert answer_line(answer(*given), "cpu", prunes) == line


@pytest.mark.parametrize("runs_on", ["tensorrt", "openvino bf16"])
@pytest.mark.parametrize("prunes", [False, True])
@pytest.mark.parametrize("kept", [11_711, 11_712])
@pytest.mark.parametrize("seconds", [0.0004, 9.994, 999.4])
def test_it_fits_80_columns(kept: int, seconds: float, prunes: bool, runs_on: str) -> None:
    assert len(answer_line(answer(11_712, kept, seconds, (0.0011, 0.0011)), runs_on, prunes)) <= 80
