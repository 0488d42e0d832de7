"""Choosing an optimization profile, and saying which limit a request breaks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap_export.bundle import GraphInfo, Profile, ShapeRange, TensorInfo
from asap_export.errors import UserError
from asap_export.runtime.profiles import choose_profile, longest

GRAPH = GraphInfo(
    "decoder.onnx",
    (
        TensorInfo("inputs_embeds", "fp16", ("batch", "sequence", 8)),
        TensorInfo("attention_mask", "int64", ("batch", "total_sequence")),
        TensorInfo("kept_length", "int64", ()),
    ),
    (),
)
CONTEXT = Profile(
    "context",
    {
        "inputs_embeds": ShapeRange((1, 2, 8), (1, 300, 8), (2, 500, 8)),
        "attention_mask": ShapeRange((1, 2), (1, 300), (2, 700)),
    },
    {"kept_length": ShapeRange((2,), (100,), (500,))},
)
GENERATION = Profile(
    "generation",
    {
        "inputs_embeds": ShapeRange((1, 1, 8), (1, 1, 8), (2, 1, 8)),
        "attention_mask": ShapeRange((1, 1), (1, 300), (2, 800)),
    },
    {"kept_length": ShapeRange((1,), (1,), (1,))},
)
PROFILES = (CONTEXT, GENERATION)


def chosen(batch: int, sequence: int, total: int, kept: int) -> str:
    shapes = {"inputs_embeds": (batch, sequence, 8), "attention_mask": (batch, total), "kept_length": ()}
    return PROFILES[choose_profile(GRAPH, PROFILES, shapes, {"kept_length": (kept,)})].name


def test_a_prompt_runs_in_the_context_profile_and_a_step_in_the_other() -> None:
    assert chosen(1, 400, 400, 90) == "context"
    assert chosen(2, 1, 800, 1) == "generation"


@given(st.integers(1, 2), st.integers(2, 500), st.integers(0, 200), st.integers(2, 500))
def test_everything_within_the_limits_is_taken(batch: int, sequence: int, past: int, kept: int) -> None:
    assert chosen(batch, sequence, sequence + past, kept) == "context"


def test_the_narrower_of_two_fitting_profiles_is_taken() -> None:
    wide = Profile("wide", {"x": ShapeRange((1,), (5,), (9,))})
    narrow = Profile("narrow", {"x": ShapeRange((1,), (1,), (1,))})
    assert choose_profile(GRAPH, (wide, narrow), {"x": (1,)}, {}) == 1
    assert choose_profile(GRAPH, (narrow, wide), {"x": (1,)}, {}) == 0
    assert choose_profile(GRAPH, (narrow, wide), {"x": (2,)}, {}) == 1


def test_a_request_beyond_both_is_told_the_limit_of_the_wider() -> None:
    wide = Profile("wide", {"x": ShapeRange((1,), (5,), (9,))})
    narrow = Profile("narrow", {"x": ShapeRange((1,), (1,), (3,))})
    for profiles in ((wide, narrow), (narrow, wide)):
        with pytest.raises(UserError, match=r"^expected x of 1 to 9 for this engine, found 10;"):
            choose_profile(GRAPH, profiles, {"x": (10,)}, {})


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ((3, 400, 400, 90), r"expected batch \(inputs_embeds\) of 1 to 2 for this engine, found 3;"),
        ((1, 501, 501, 90), r"expected sequence \(inputs_embeds\) of 2 to 500 for this engine, found 501;"),
        ((1, 400, 701, 90), r"expected total_sequence \(attention_mask\) of 2 to 700 .* found 701;"),
        ((1, 1, 801, 1), r"expected total_sequence \(attention_mask\) of 1 to 800 .* found 801;"),
        ((1, 400, 400, 501), r"expected kept_length of 2 to 500 for this engine, found 501;"),
    ],
)
def test_the_limit_that_is_broken_is_named(request_: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen(*request_)


def test_the_longest_of_all_profiles() -> None:
    assert longest(PROFILES, "attention_mask", 1) == 800
    assert longest(PROFILES, "position_ids", 1) is None
