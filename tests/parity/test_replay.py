"""A cut replayed from its own numbers: what the ONNX operators chose comes out, and nothing else does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_models import run_operator

from asap_export.parity.replay import replay_merge, replay_topk

THRESHOLD = 0.8


def cut(seed, tokens=40, kept=24, width=16, alike=0.5):
    """Inputs of AsapMerge: visual tokens around a few directions, so that many are similar."""
    random = np.random.default_rng(seed)
    directions = random.normal(size=(4, width))
    hidden = directions[random.integers(0, 4, tokens)] + alike * random.normal(size=(tokens, width))
    visual = np.arange(tokens) < tokens - 6
    index = np.sort(random.choice(np.flatnonzero(visual), kept - 6, replace=False))
    return {
        "hidden": hidden[None].astype(np.float32),
        "index": np.concatenate([index, np.flatnonzero(~visual)])[None],
        "visual_mask": visual[None],
        "salience": random.random((1, tokens)).astype(np.float32),
        "mass": random.random((1, tokens)).astype(np.float32),
    }


def as_tensors(values):
    return {name: torch.from_numpy(np.array(value)) for name, value in values.items()}


def replays(values, threshold=THRESHOLD):
    """Whether a replay ends where the values say that a graph ended."""
    found = replay_merge(as_tensors(values), threshold, 1e-4)
    return (
        np.array_equal(found.kept_index, values["kept_index"])
        and np.array_equal(found.absorbed, values["absorbed"])
        and np.allclose(found.merged, values["merged"], atol=1e-4)
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), alike=st.sampled_from([0.1, 0.5, 1.0]))
def test_what_the_operator_chose_comes_out(seed, alike):
    inputs = cut(seed, alike=alike)
    found = run_operator("onnxruntime", "AsapMerge", inputs, threshold=THRESHOLD)
    assert replays(inputs | found)
    assert found["absorbed"].any() or alike == 1.0


def test_another_choice_does_not():
    inputs = cut(3)
    found = run_operator("onnxruntime", "AsapMerge", inputs, threshold=THRESHOLD)
    moved = found["kept_index"].copy()
    moved[0, 0] = next(place for place in range(40) if place not in moved[0])
    assert not replays(inputs | found | {"kept_index": np.sort(moved)})
    other = inputs | {"index": np.concatenate([np.arange(18), np.arange(34, 40)])[None]}
    assert not replays(other | found)
    assert not replays(inputs | run_operator("onnxruntime", "AsapMerge", inputs, threshold=0.9))


def pair(cosine):
    """Two visual tokens of this similarity, one unlike either, and a text token; all are kept but one."""
    hidden = np.array([[1, 0, 0], [cosine, np.sqrt(1 - cosine**2), 0], [0, 0, 1], [0, 0, 2], [1, 1, 1]])
    return {
        "hidden": hidden[None].astype(np.float32),
        "index": np.array([[0, 1, 2, 4]]),
        "visual_mask": np.array([[True, True, True, True, False]]),
        "salience": np.array([[0.9, 0.5, 0.3, 0.1, 0]], np.float32),
        "mass": np.array([[9, 5, 3, 1, 0]], np.float32),
    }


@pytest.mark.parametrize("apart, explained", [(2e-8, True), (-2e-8, True), (1e-3, False), (-1e-3, False)])
def test_a_cosine_within_rounding_of_the_threshold_may_be_read_either_way(apart, explained):
    """A graph that saw the pair on the other side of the threshold."""
    values = pair(THRESHOLD + apart)
    other = run_operator(
        "onnxruntime", "AsapMerge", pair(THRESHOLD - np.sign(apart) * 1e-2), threshold=THRESHOLD
    )
    states = values["hidden"][0]
    merged = states[other["kept_index"][0]]
    if apart < 0:  # it merged the pair
        merged[0] = (0.9 * states[0] + 0.5 * states[1]) / 1.4
    assert replays(values | other | {"merged": merged[None]}) == explained


def test_top_k_is_replayed_from_its_scores():
    score = np.array([[0.1, 0.7, 0.7, 0.2, 0.0]], np.float32)
    visual = np.array([[True, True, True, True, False]])
    values = {
        "score": score,
        "visual_mask": visual,
        "attention_mask": np.ones_like(visual),
        "kept_length": np.array(2),
    }
    assert replay_topk(as_tensors(values)).tolist() == [[1, 4]]
