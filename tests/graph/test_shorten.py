"""The decoder of a model's first layers: the same numbers up to there, and nothing of the others."""

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from asap_export.graph.shorten import keep_first_layers
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession

LAYERS = 4


@pytest.fixture(params=["pruned_bundle", "dense_bundle", "untrimmed_bundle"])
def decoders(request):
    """A bundle's folder, its decoder of eight layers, and the same of four."""
    folder = request.getfixturevalue(request.param)
    whole = onnx.load(folder / "decoder.onnx", load_external_data=False)
    short = ir.from_proto(whole)
    keep_first_layers(short, LAYERS)
    return folder, whole, ir.to_proto(short)


def prompt(model, past):
    """Inputs of a prefill: 24 new tokens, ten of them visual and six of those to stay, on ``past`` cached ones."""
    random = np.random.default_rng(0)
    known = {
        "inputs_embeds": random.normal(size=(1, 24, 128)).astype(np.float32),
        "attention_mask": np.ones((1, past + 24), np.int64),
        "early_attention_mask": np.ones((1, past + 2 + 24), np.int64),
        "position_ids": past + np.arange(24)[None],
        "visual_mask": (np.arange(24) > 4)[None] & (np.arange(24) < 15)[None],
        "kept_length": np.array(20),
    }
    early = 2 if "early_attention_mask" in {value.name for value in model.graph.input} else 0
    feeds = {}
    for value in model.graph.input:
        if value.name in known:
            feeds[value.name] = known[value.name]
            continue
        layer = int(value.name.split(".")[1])
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        length = past + (early if layer < 2 else 0)
        random = np.random.default_rng(layer)
        feeds[value.name] = random.normal(size=(1, shape[1], length, shape[3])).astype(np.float32)
    return feeds


def outputs(model, folder, past):
    names = [value.name for value in model.graph.output]
    session = OnnxRuntimeSession(model.SerializeToString(), weights=folder)
    return session.run(prompt(model, past), on_host=names)


@pytest.mark.parametrize("past", [0, 7])
def test_caches_of_the_first_layers_are_the_same(decoders, past):
    folder, whole, short = decoders
    expected, found = (outputs(model, folder, past) for model in (whole, short))
    assert {f"present.{layer}.key" for layer in range(LAYERS)} <= set(found)
    for name in set(found) - {"logits"}:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


def test_nothing_of_the_other_layers_is_left(decoders):
    _, whole, short = decoders
    names = [value.name for value in (*short.graph.input, *short.graph.output, *short.graph.initializer)]
    layers = {
        int(found[1]) for name in names if (found := re.search(r"(?:layers|values|present)\.(\d+)\.", name))
    }
    assert layers == set(range(LAYERS))
    assert {"decoder.lm_head.weight", "decoder.language_model.norm.weight"} <= set(names)
    assert len(short.graph.node) < 0.7 * len(whole.graph.node)


def test_all_layers_are_the_graph_itself(pruned_bundle):
    whole = onnx.load(pruned_bundle / "decoder.onnx", load_external_data=False)
    model = ir.from_proto(whole)
    keep_first_layers(model, 8)
    assert [node.output for node in ir.to_proto(model).graph.node] == [
        node.output for node in whole.graph.node
    ]
    with pytest.raises(ValueError, match="between 1 and 8 layers, found 9"):
        keep_first_layers(model, 9)
