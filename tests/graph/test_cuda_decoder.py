"""decoder.cuda.onnx: decoder.onnx to the last bit, without the cut in steps that cut nothing.

Run on a CPU, which has all of its operators: it is made of the ones of decoder.onnx and an If.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from asap_export.bundle import Bundle
from asap_export.runtime.graphs import Graphs
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.session import Sessions

# New tokens, which of them are visual, how many are kept: a prompt, a decode step, a turn with an image, one
# without, and a prompt that loses nothing.
TURNS = {
    "a prompt": (40, slice(9, 33), 22),
    "a decode step": (1, slice(0), 1),
    "a turn with an image": (13, slice(2, 10), 9),
    "a turn without": (6, slice(0), 6),
    "an image that is kept whole": (9, slice(1, 5), 9),
}


def graphs_of(bundle: Path, file: str) -> Graphs:
    manifest = Bundle.open(bundle).manifest
    decoder = OnnxRuntimeSession(bundle / file, threads=1)
    return Graphs(manifest, Sessions(None, None, decoder), manifest.dtype)


def conversation(graphs: Graphs):
    random = np.random.default_rng(0)
    cache = graphs.empty_cache(2)
    for new, visual, kept in TURNS.values():
        width = graphs.manifest.model.hidden_size
        embeds = random.standard_normal((2, new, width)).astype(graphs.numpy_dtype)
        mask = np.ones((2, new), np.int64)
        mask[1, : 5 if new == 40 else 0] = 0
        visual_mask = np.zeros((2, new), np.bool_)
        visual_mask[:, visual] = True
        step = graphs.step(embeds, mask, visual_mask, kept, cache)
        cache = step.cache
        yield step


@pytest.mark.parametrize("fixture", ["pruned_bundle", "untrimmed_bundle", "fp16_bundle"])
def test_it_computes_what_the_decoder_does(fixture: str, request: pytest.FixtureRequest) -> None:
    bundle = request.getfixturevalue(fixture)
    whole, lowered = (graphs_of(bundle, file) for file in ("decoder.onnx", "decoder.cuda.onnx"))
    for expected, found in zip(conversation(whole), conversation(lowered), strict=True):
        np.testing.assert_array_equal(found.logits, expected.logits)
        np.testing.assert_array_equal(found.kept_index, expected.kept_index)
        for name, value in expected.cache.layers.items():
            np.testing.assert_array_equal(found.cache.layers[name].numpy(), value.numpy(), err_msg=name)


@pytest.mark.parametrize("fixture", ["pruned_bundle", "untrimmed_bundle", "fp16_bundle"])
def test_it_passes_onnxs_checks_and_has_the_decoders_inputs_and_outputs(fixture, request) -> None:
    bundle = request.getfixturevalue(fixture)
    onnx.checker.check_model(bundle / "decoder.cuda.onnx", full_check=True)
    whole, lowered = (
        onnx.load(bundle / file, load_external_data=False).graph
        for file in ("decoder.onnx", "decoder.cuda.onnx")
    )
    for kind in ("input", "output"):
        assert [value.name for value in getattr(lowered, kind)] == [
            value.name for value in getattr(whole, kind)
        ]


def ran(bundle: Path, file: str, turn: str, folder: Path) -> list[str]:
    """The operators that ONNX Runtime ran for a turn, by its profile."""
    session = OnnxRuntimeSession(bundle / file, threads=1, profile=folder / file)
    manifest = Bundle.open(bundle).manifest
    graphs = Graphs(manifest, Sessions(None, None, session), manifest.dtype)
    new, visual, kept = TURNS[turn]
    visual_mask = np.zeros((1, new), np.bool_)
    visual_mask[:, visual] = True
    embeds = np.zeros((1, new, manifest.model.hidden_size), graphs.numpy_dtype)
    graphs.step(embeds, np.ones((1, new), np.int64), visual_mask, kept, graphs.empty_cache(1))
    events = json.loads(session.end_profiling().read_text())
    return [event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")]


def test_a_step_runs_nothing_of_the_cut(pruned_bundle: Path, tmp_path: Path) -> None:
    whole, step, prompt = (
        ran(pruned_bundle, file, turn, tmp_path)
        for file, turn in (
            ("decoder.onnx", "a decode step"),
            ("decoder.cuda.onnx", "a decode step"),
            ("decoder.cuda.onnx", "a prompt"),
        )
    )
    assert {"TopK", "Loop", "ScatterElements"} <= set(whole) & set(prompt)
    assert not {"TopK", "Loop", "ScatterElements"} & set(step)
    assert len(step) < len(whole) - 300


def test_a_dense_decoder_needs_none(dense_bundle: Path) -> None:
    assert Bundle.open(dense_bundle).manifest.cuda_decoder is None
    assert not (dense_bundle / "decoder.cuda.onnx").exists()
