"""Choosing any number of tokens: SelectLargest, Positions, and the operators at four large images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, inliner
from onnxruntime import InferenceSession
from operator_models import RUNTIMES, operator_model, run_operator

from asap_export.engine.limits import LONGEST_SEQUENCE
from asap_export.pruning import operators

SETTINGS = settings(max_examples=150, deadline=None)
# Beside infinities and both zeros: the smallest denormals, neighbours, and the largest numbers.
EDGES = np.array(
    [-np.inf, -3.4e38, -1, -1e-45, -0.0, 0, 1e-45, 3e-45, 1, 1.0000001, 3.4e38, np.inf], np.float32
)
# Groups of SelectLargest have 1,024 tokens, so sizes about their multiples matter.
TOKENS = st.one_of(st.integers(1, 80), st.sampled_from([1023, 1024, 1025, 2048, 3000, 5000]))


@st.composite
def rows_of_values(draw):
    """Values with many ties or none, in one to three rows, sorted or not."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    shape = draw(st.integers(1, 3)), draw(TOKENS)
    value = draw(
        st.sampled_from(
            [
                lambda: rng.standard_normal(shape),
                lambda: rng.integers(-3, 4, shape),
                lambda: rng.choice(EDGES, shape),
                lambda: np.where(rng.random(shape) < 0.9, 0, rng.standard_normal(shape)),
                lambda: np.sort(rng.standard_normal(shape) * 10.0 ** rng.integers(-44, 38, shape)),
            ]
        )
    )()
    candidate = rng.random(shape) < draw(st.sampled_from([1.0, 0.7, 0.1]))
    return value.astype(np.float32), candidate, rng


def largest(value, candidate, count):
    """The rule of graphs/README.md, one token after the other."""
    chosen = np.zeros_like(candidate)
    for row, order in enumerate(np.argsort(-value, axis=1, kind="stable")):
        chosen[row, [token for token in order if candidate[row, token]][: count[row, 0]]] = True
    return chosen


@SETTINGS
@given(rows_of_values(), st.data())
def test_the_largest_are_chosen_whatever_ties(rows, data):
    value, candidate, rng = rows
    most = candidate.sum(1, keepdims=True)
    every = {"none": most * 0, "all": most, "some": rng.integers(0, most + 1)}
    count = every[data.draw(st.sampled_from(sorted(every)))]
    inputs = {"value": value, "candidate": candidate, "count": count}
    found = run_operator("onnxruntime", "SelectLargest", inputs)["chosen"]
    np.testing.assert_array_equal(found, largest(value, candidate, count))


@SETTINGS
@given(rows_of_values(), st.data())
def test_positions_are_where_the_true_values_are_and_then_the_others(rows, data):
    _, chosen, _ = rows
    length = data.draw(st.integers(1, chosen.shape[1]))
    expected = np.argsort(~chosen, axis=1, kind="stable")[:, :length]
    inputs = {"chosen": chosen, "length": np.array([length])}
    np.testing.assert_array_equal(run_operator("onnxruntime", "Positions", inputs)["index"], expected)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_both_runtimes_choose_across_groups(runtime):
    value = np.random.default_rng(0).integers(0, 40, (2, 2500)).astype(np.float32)
    candidate, count = value != 7, np.array([[1], [1700]])
    inputs = {"value": value, "candidate": candidate, "count": count}
    chosen = run_operator(runtime, "SelectLargest", inputs)["chosen"]
    np.testing.assert_array_equal(chosen, largest(value, candidate, count))
    index = run_operator(runtime, "Positions", {"chosen": chosen, "length": np.array([1])})["index"]
    np.testing.assert_array_equal(index[:, 0], chosen.argmax(1))


@pytest.mark.parametrize(("tokens", "largest_k"), [(1, 1), (12224, 1024), (LONGEST_SEQUENCE, 3840)])
def test_no_topk_is_asked_for_more_than_tensorrt_takes(tokens, largest_k):
    model = inliner.inline_local_functions(operator_model("SelectLargest"))
    ks = [node.input[1] for node in model.graph.node if node.op_type == "TopK"]
    assert len(ks) == 3
    model.graph.output.extend(helper.make_tensor_value_info(k, TensorProto.INT64, [1]) for k in ks)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ones = np.ones((1, tokens), bool)
    inputs = {"value": ones.astype(np.float32), "candidate": ones, "count": np.array([[tokens]])}
    assert max(int(k[0]) for k in session.run(ks, inputs)) == largest_k


IMAGES, OF_IMAGE, TEXT, KEPT = 4, 2928, 88, 6000


def four_images():
    """Masks and random numbers for a prompt of four images of 672 x 672, a question before and behind them."""
    tokens = IMAGES * OF_IMAGE + TEXT
    visual = np.zeros((1, tokens), bool)
    visual[:, TEXT // 2 : -TEXT // 2] = True
    rng = np.random.default_rng(5)
    return visual, np.ones_like(visual), rng.integers(0, 999, (2, 1, tokens)).astype(np.float32) / 999, rng


def test_four_large_images_are_cut_and_merged_as_in_pytorch():
    """States have four ones among 60 places: cosines are quarters, and none is within rounding of 0.6."""
    visual, valid, (score, mass), rng = four_images()
    inputs = {"score": score, "visual_mask": visual, "attention_mask": valid, "kept_length": np.array(KEPT)}
    index = run_operator("onnxruntime", "AsapTopK", inputs)["index"]
    expected = operators.topk(*(torch.from_numpy(np.asarray(value)) for value in inputs.values()))
    np.testing.assert_array_equal(index, expected.numpy())

    places = rng.random((visual.shape[1], 60)).argsort(1)
    hidden = (places < 4).astype(np.float32)[None]
    salience = np.where(visual, np.round(rng.random(visual.shape), 3), 0).astype(np.float32)
    inputs = {"hidden": hidden, "index": index, "visual_mask": visual, "salience": salience, "mass": mass}
    found = run_operator("onnxruntime", "AsapMerge", inputs, threshold=0.6)
    merged, kept_index, absorbed = operators.merge(*map(torch.from_numpy, inputs.values()), 0.6)
    assert 1000 < absorbed.sum() < KEPT - 1000
    np.testing.assert_array_equal(found["absorbed"], absorbed.numpy())
    np.testing.assert_array_equal(found["kept_index"], kept_index.numpy())
    np.testing.assert_allclose(found["merged"], merged.numpy(), rtol=1e-5, atol=1e-5)
