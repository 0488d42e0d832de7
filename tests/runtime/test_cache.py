"""Masks and positions of a cache, over any course of prompts and steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap_export.runtime.cache import Cache, empty_cache
from asap_export.runtime.generate import kept_length, left_padded

FP32 = np.dtype(np.float32)


def fresh(batch: int, early: bool = False) -> Cache:
    return empty_cache(batch, layers=2, kv_heads=1, head_dim=4, dtype=FP32, early=early)


def outputs(cache: Cache) -> dict[str, str]:
    return {name.replace("past_key_values", "present"): name for name in cache.layers}


def test_an_empty_cache_has_an_empty_input_for_each_layer() -> None:
    cache = fresh(3)
    names = [f"past_key_values.{layer}.{part}" for layer in (0, 1) for part in ("key", "value")]
    assert list(cache.layers) == names
    assert {value.shape for value in cache.layers.values()} == {(3, 1, 0, 4)}
    assert cache.length == 0


def test_positions_count_valid_tokens_and_masks_remember_what_survived() -> None:
    new_mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    cache = fresh(2)
    assert cache.inputs(new_mask)["position_ids"].tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]

    grown = cache.grown(new_mask, np.array([[1, 2, 4], [0, 3, 4]]), outputs(cache))
    assert grown.mask.tolist() == [[0, 1, 1], [1, 1, 1]]
    assert grown.fed.tolist() == [3, 5]
    assert grown.layers == {name: name for name in cache.layers}

    step = np.array([[1], [1]])
    inputs = grown.inputs(step)
    assert inputs["position_ids"].tolist() == [[3], [5]]  # not the cache's length
    assert inputs["attention_mask"].tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert "early_attention_mask" not in inputs


def test_untrimmed_layers_have_a_mask_of_their_own() -> None:
    cache = fresh(1, early=True)
    new_mask = np.array([[0, 1, 1, 1]])
    grown = cache.grown(new_mask, np.array([[1, 3]]), outputs(cache))
    inputs = grown.inputs(np.array([[1]]))
    assert inputs["attention_mask"].tolist() == [[1, 1, 1]]
    assert inputs["early_attention_mask"].tolist() == [[0, 1, 1, 1, 1]]
    assert grown.length == 4


def test_tokens_are_plain_where_nothing_is_padded_and_rows_need_no_mask_of_their_own() -> None:
    three, one, padded = np.ones((2, 3), int), np.ones((2, 1), int), np.array([[0, 1, 1], [1, 1, 1]])
    everything = np.broadcast_to(np.arange(3), (2, 3))
    empty = fresh(2)
    assert empty.plain(three) and not empty.plain(padded)
    later = empty.grown(three, everything, outputs(empty))
    assert later.plain(one) and not later.plain(three)
    after_padding = empty.grown(padded, everything, outputs(empty))
    assert not after_padding.plain(one)
    alone = fresh(1)
    assert alone.grown(three[:1], everything[:1], outputs(alone)).plain(three[:1])


@pytest.mark.parametrize("early", [False, True])
def test_a_row_that_has_ended_attends_to_everything_and_remembers_padding(early: bool) -> None:
    prompt, step = np.array([[0, 1, 1], [1, 1, 1]]), np.array([[0], [1]])
    cache = fresh(2, early)
    cache = cache.grown(prompt, np.array([[0, 1, 2], [0, 1, 2]]), outputs(cache))
    for length in (4, 5):
        inputs = cache.inputs(step)
        for name in ("attention_mask", "early_attention_mask")[: 1 + early]:
            assert inputs[name].tolist() == [[1] * length] * 2
        assert inputs["position_ids"].tolist() == [[1], [length - 1]]
        assert cache.plain(step) and not cache.plain(np.ones((2, 1), int))
        cache = cache.grown(step, np.zeros((2, 1), int), outputs(cache))
    assert cache.mask.tolist() == [[0, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert cache.inputs(np.ones((2, 1), int))["attention_mask"].tolist() == [[0, 1, 1, 0, 0, 1], [1] * 6]
    if early:
        assert cache.early_mask is not None and cache.early_mask.tolist() == cache.mask.tolist()


@given(st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=5))
def test_rows_are_padded_on_the_left(rows: list[list[int]]) -> None:
    ids, mask = left_padded([np.array(row, np.int64) for row in rows])
    assert ids.shape == mask.shape == (len(rows), max(map(len, rows)))
    for row, found, valid in zip(rows, ids, mask, strict=True):
        assert found[valid == 1].tolist() == row
        assert valid.tolist() == sorted(valid)


@st.composite
def batches(draw):
    """visual_mask and new_mask [B, T] of left-padded rows."""
    rows = draw(st.lists(st.lists(st.booleans(), max_size=12), min_size=1, max_size=4))
    longest = max(map(len, rows)) or 1
    visual = [[False] * (longest - len(row)) + row for row in rows]
    valid = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return np.array(visual, bool), np.array(valid)


@given(batches(), st.integers(1, 14))
def test_every_row_keeps_its_text_and_its_budget(batch, keep: int) -> None:
    visual, valid = batch
    length = kept_length(keep, visual, valid)
    text = ((valid == 1) & ~visual).sum(axis=1)
    if not visual.any():
        assert length == visual.shape[1]
    else:
        assert length <= visual.shape[1]
        assert (length >= text + np.minimum(keep, visual.sum(axis=1))).all()


def test_kept_length_is_the_reference_s() -> None:
    torch = pytest.importorskip("torch")
    from asap_export.pruning import topk

    generator = np.random.default_rng(0)
    for _ in range(50):
        valid = np.sort(generator.integers(0, 2, (3, 9)), axis=1)
        visual = (generator.random((3, 9)) < 0.4) & (valid == 1)
        keep = int(generator.integers(1, 9))
        expected = topk.kept_length(keep, torch.from_numpy(visual), torch.from_numpy(valid).bool())
        assert kept_length(keep, visual, valid) == expected
