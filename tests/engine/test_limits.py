"""What a request may be at most, and limits that cannot be."""

from dataclasses import replace

import pytest
from engine_specs import MISTRAL, TINY, VICUNA, spec
from hypothesis import given
from hypothesis import strategies as st

from asap_export.bundle import Limits
from asap_export.engine import check_limits, default_limits
from asap_export.errors import UserError
from asap_export.pruning.config import Budget, PruningConfig

ASAP, DENSE = PruningConfig(), PruningConfig(method="none")
LLAMA_3 = spec(positions=8192, kv_heads=8)
SIXTH = Budget(ratio=1 / 6)


def test_a_checkpoint_has_limits_of_its_own():
    assert VICUNA.max_visual_tokens == 2928
    assert default_limits(VICUNA) == Limits(1, 1, 512, 512)
    assert default_limits(TINY) == Limits(1, 1, 512, 512)


def test_what_is_given_stands_and_the_rest_makes_room():
    assert default_limits(VICUNA, max_text=1000) == Limits(1, 1, 1000, 168)
    assert default_limits(VICUNA, max_new_tokens=1100) == Limits(1, 1, 68, 1100)
    assert default_limits(MISTRAL, max_batch=4, max_images=8) == Limits(4, 8, 512, 512)


def test_a_preset_s_limits_make_room_for_what_is_given():
    usual = Limits(4, 2, 1312, 1024)
    assert default_limits(LLAMA_3, usual) == usual
    assert default_limits(LLAMA_3, usual, max_batch=1, max_text=1400) == Limits(1, 2, 1400, 936)
    assert default_limits(LLAMA_3, usual, max_images=1) == Limits(4, 1, 1312, 1024)
    assert default_limits(LLAMA_3, usual, max_text=4000) == Limits(4, 1, 4000, 1024)
    assert default_limits(LLAMA_3, usual, max_images=2, max_text=2300) == Limits(4, 2, 2300, 36)


@given(st.sampled_from((VICUNA, MISTRAL, TINY)), st.integers(1, 11), st.integers(1, 9))
def test_defaults_always_pass_where_the_images_fit(spec, images, batch):
    limits = default_limits(spec, max_images=images, max_batch=batch)
    if images * spec.max_visual_tokens + 2 > spec.max_position_embeddings:
        with pytest.raises(UserError, match="positions"):
            check_limits(limits, spec, ASAP, SIXTH, with_engines=False)
    else:
        check_limits(limits, spec, ASAP, Budget(keep=1), with_engines=True)


@pytest.mark.parametrize("name", ["max_batch", "max_images", "max_text", "max_new_tokens"])
def test_a_limit_is_at_least_one(name):
    limits = default_limits(TINY, **{name: 0})
    with pytest.raises(UserError, match=f"expected {name} of at least 1, found 0"):
        check_limits(limits, TINY, ASAP, SIXTH, with_engines=False)


def test_limits_that_exceed_the_positions_say_what_they_add_up_to():
    with pytest.raises(UserError, match=r"4096 positions, found 6880: 2 x 2928 .* lower max_images"):
        check_limits(Limits(1, 2, 512, 512), VICUNA, ASAP, SIXTH, with_engines=False)


def test_an_engine_keeps_as_many_tokens_as_a_budget_asks_for():
    for keep in (3841, 6000, 4 * 2928):
        check_limits(Limits(1, 4, 512, 512), MISTRAL, ASAP, Budget(keep=keep), with_engines=True)


@pytest.mark.parametrize("with_engines", [False, True])
def test_a_budget_that_the_most_images_cannot_meet_is_refused(with_engines):
    average = Budget(layer_average=700)
    check_limits(Limits(1, 3, 512, 512), MISTRAL, ASAP, average, with_engines=with_engines)
    with pytest.raises(UserError, match="budget of at least 733 for 11712 visual tokens"):
        check_limits(Limits(1, 4, 512, 512), MISTRAL, ASAP, average, with_engines=with_engines)


UNTRIMMED = PruningConfig(trim_early_kv=False)


@pytest.mark.parametrize(
    ("pruning", "limits", "keep", "cached"),
    [(ASAP, Limits(1, 9, 512, 512), 23425, 24448), (UNTRIMMED, Limits(1, 8, 512, 513), 1, 24448)],
)
def test_a_cache_that_tensorrt_takes_no_step_behind_is_refused_for_engines_only(
    pruning, limits, keep, cached
):
    """At most 24,447 keys with heads of 128; without a cut there is no such limit."""
    check_limits(limits, MISTRAL, pruning, Budget(keep=keep), with_engines=False)
    with pytest.raises(
        UserError, match=rf"leave at most 24447 tokens in the cache .* found {cached} with .*keep"
    ):
        check_limits(limits, MISTRAL, pruning, Budget(keep=keep), with_engines=True)
    less = replace(limits, max_text=limits.max_text - 1)
    check_limits(less, MISTRAL, pruning, Budget(keep=keep), with_engines=True)
    check_limits(limits, MISTRAL, DENSE, Budget(ratio=1.0), with_engines=True)


def test_prompts_that_selection_cannot_sort_are_refused_for_engines_only():
    endless, limits = spec(positions=1 << 17, kv_heads=8), Limits(1, 41, 2833, 512)
    check_limits(limits, endless, ASAP, SIXTH, with_engines=False)
    with pytest.raises(
        UserError, match=r"at most 122880 tokens .* found 122881: 120048 visual .* lower max_im"
    ):
        check_limits(limits, endless, ASAP, SIXTH, with_engines=True)
    check_limits(replace(limits, max_text=2832), endless, ASAP, SIXTH, with_engines=True)
