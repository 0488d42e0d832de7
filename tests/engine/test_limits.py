"""What a request may be at most, and limits that cannot be."""

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
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} of at least 1, found 0"):
        check_limits(limits, TINY, ASAP, SIXTH, with_engines=False)


def test_limits_that_exceed_the_positions_say_what_they_add_up_to():
    with pytest.raises(UserError, match=r"4096 positions, found 6880: 2 x 2928 .* lower --max-images"):
        check_limits(Limits(1, 2, 512, 512), VICUNA, ASAP, SIXTH, with_engines=False)


def test_more_kept_tokens_than_topk_can_choose_are_refused_for_engines_only():
    limits, keep = Limits(1, 2, 512, 512), Budget(keep=3840)
    check_limits(limits, MISTRAL, ASAP, keep, with_engines=False)
    with pytest.raises(
        UserError, match=r"at most 3840 tokens .* found 3840 visual ones and --max-text 512; lower --keep"
    ):
        check_limits(limits, MISTRAL, ASAP, keep, with_engines=True)
    check_limits(limits, MISTRAL, ASAP, Budget(keep=3840 - 512), with_engines=True)
    check_limits(limits, MISTRAL, DENSE, Budget(ratio=1.0), with_engines=True)
