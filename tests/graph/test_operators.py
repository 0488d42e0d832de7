"""The function bodies equal the PyTorch operators on batches, padding, cached tokens, ties, and every dtype."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from operator_models import run_operator

from asap_export.pruning import operators

SETTINGS = settings(max_examples=60, deadline=None)


@st.composite
def batches(draw):
    """Queries, keys and masks of a few sequences: padded on the left, with cached tokens, some without images."""
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    rows, tokens, past = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(0, 9))
    groups, per_group = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    vectors = rng.standard_normal
    attention = np.ones((rows, past + tokens), bool)
    visual = np.zeros((rows, tokens), bool)
    for row in range(rows):
        padding = int(rng.integers(0, tokens))
        attention[row, past : past + padding] = False
        start, end = np.sort(rng.integers(padding, tokens + 1, 2))
        visual[row, start:end] = True
    new_mask = attention[:, past:]
    text = int((new_mask & ~visual).sum(1).max())
    kept = draw(st.integers(max(1, text), tokens)) if visual.any() else tokens
    return {
        "query": vectors((rows, groups * per_group, tokens, 8)).astype(np.float32),
        "key": vectors((rows, groups, past + tokens, 8)).astype(np.float32),
        "hidden": np.repeat(vectors((rows, tokens // 3 + 1, 12)), 3, 1)[:, :tokens].astype(np.float32)
        + 0.3 * vectors((rows, tokens, 12)).astype(np.float32),
        "visual_mask": visual,
        "attention_mask": attention,
        "new_mask": new_mask,
        "kept_length": np.array(kept),
        "rounded": np.round(vectors((rows, tokens)), draw(st.sampled_from([0, 1, 6]))).astype(np.float32),
    }


def to_torch(*arrays):
    return [torch.from_numpy(np.asarray(array)) for array in arrays]


@SETTINGS
@given(batches(), st.sampled_from([1.0, 0.5, 0.01]))
def test_mask_and_score(batch, lambda_max):
    query, key, visual, attention = (
        batch[name] for name in ("query", "key", "visual_mask", "attention_mask")
    )
    inputs = {"query": query, "key": key, "visual_mask": visual, "attention_mask": attention}
    found = run_operator("onnxruntime", "AsapMask", inputs, lambda_max=lambda_max, scale=0.3)
    expected = operators.mask(*to_torch(query, key, visual, attention), lambda_max, 0.3)
    for name, value in zip(("bias", "mass", "salience"), expected, strict=True):
        valid = (
            np.broadcast_to(visual, found[name].shape) if name != "bias" else np.ones_like(found[name], bool)
        )
        np.testing.assert_allclose(found[name][valid], value.numpy()[valid], rtol=1e-4, atol=1e-5)

    weight = np.random.default_rng(0).random(visual.shape, dtype=np.float32)
    rows = {"query": query, "key": key, "bias": expected[0].numpy(), "row_weight": weight}
    found = run_operator("onnxruntime", "AsapScore", rows, scale=0.3)
    received = operators.score(*to_torch(*rows.values()), 0.3)
    np.testing.assert_allclose(found["score"], received.numpy(), rtol=1e-5, atol=1e-6)


@SETTINGS
@given(batches())
def test_topk_is_exact_with_ties(batch):
    """Scores rounded to integers tie all the time; the lower position wins."""
    inputs = {
        "score": batch["rounded"],
        "visual_mask": batch["visual_mask"],
        "attention_mask": batch["new_mask"],
        "kept_length": batch["kept_length"],
    }
    expected = operators.topk(*to_torch(*inputs.values()))
    for runtime in ("onnxruntime", "onnx reference"):
        np.testing.assert_array_equal(run_operator(runtime, "AsapTopK", inputs)["index"], expected.numpy())


@SETTINGS
@given(batches(), st.sampled_from([0.2, 0.6, 0.9, 1.0]), st.booleans())
def test_merge_is_the_greedy_one(batch, threshold, tied):
    visual, kept_length = batch["visual_mask"], batch["kept_length"]
    mass = batch["rounded"]
    salience = np.where(visual, np.abs(mass) if tied else np.abs(mass + 0.01 * batch["hidden"][..., 0]), 0)
    index = operators.topk(*to_torch(batch["rounded"], visual, batch["new_mask"], kept_length)).numpy()
    inputs = {"hidden": batch["hidden"], "index": index, "visual_mask": visual}
    inputs |= {"salience": salience.astype(np.float32), "mass": mass}
    found = run_operator("onnxruntime", "AsapMerge", inputs, threshold=threshold)
    expected = operators.merge(*to_torch(*inputs.values()), threshold)
    np.testing.assert_array_equal(found["absorbed"], expected[2].numpy())
    np.testing.assert_array_equal(found["kept_index"], expected[1].numpy())
    np.testing.assert_allclose(found["merged"], expected[0].numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "numpy_type, onnx_type, runtime",
    [
        (np.float16, TensorProto.FLOAT16, "onnxruntime"),
        (np.float16, TensorProto.FLOAT16, "onnx reference"),
        # ONNX Runtime's CPU provider gathers no bfloat16
        (ml_dtypes.bfloat16, TensorProto.BFLOAT16, "onnx reference"),
    ],
)
def test_half_precision_models_are_scored_and_merged_in_float32(numpy_type, onnx_type, runtime):
    rng = np.random.default_rng(3)
    half = {
        name: rng.standard_normal(shape).astype(numpy_type)
        for name, shape in {"query": (1, 4, 30, 8), "key": (1, 2, 30, 8), "hidden": (1, 30, 12)}.items()
    }
    wide = {name: value.astype(np.float32) for name, value in half.items()}
    visual = (np.arange(30) > 3)[None] & (np.arange(30) < 27)[None]
    valid = np.ones_like(visual)

    masks = {"visual_mask": visual, "attention_mask": valid}
    inputs = {"query": half["query"], "key": half["key"]} | masks
    found = run_operator(runtime, "AsapMask", inputs, onnx_type, lambda_max=0.5, scale=0.35)
    bias, mass, salience = operators.mask(*to_torch(wide["query"], wide["key"], visual, valid), 0.5, 0.35)
    np.testing.assert_allclose(found["salience"], salience.numpy(), atol=1e-5)
    np.testing.assert_allclose(found["bias"], bias.numpy(), rtol=1e-4, atol=1e-4)

    index = np.arange(0, 30, 2)[None]
    inputs = {"hidden": half["hidden"], "index": index, "visual_mask": visual}
    inputs |= {"salience": salience.numpy(), "mass": mass.numpy()}
    found = run_operator(runtime, "AsapMerge", inputs, onnx_type, threshold=0.1)
    expected = operators.merge(*to_torch(wide["hidden"], *list(inputs.values())[1:]), 0.1)
    assert found["merged"].dtype == numpy_type
    np.testing.assert_array_equal(found["kept_index"], expected[1].numpy())
    np.testing.assert_array_equal(found["merged"], expected[0].numpy().astype(numpy_type))


def test_without_visual_tokens_everything_is_the_identity():
    """A decode step: one new token, none of them visual, nothing to drop."""
    hidden = np.random.default_rng(0).standard_normal((2, 1, 12)).astype(np.float32)
    none, valid = np.zeros((2, 1), bool), np.ones((2, 1), bool)
    score = np.zeros((2, 1), np.float32)
    inputs = {"score": score, "visual_mask": none, "attention_mask": valid, "kept_length": np.array(1)}
    index = run_operator("onnxruntime", "AsapTopK", inputs)["index"]
    inputs = {"hidden": hidden, "index": index, "visual_mask": none, "salience": score, "mass": score}
    merged = run_operator("onnxruntime", "AsapMerge", inputs, threshold=0.9)
    np.testing.assert_array_equal(merged["merged"], hidden)
    np.testing.assert_array_equal(merged["kept_index"], np.zeros((2, 1)))
