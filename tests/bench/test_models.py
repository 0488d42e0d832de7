"""Every contender does the same work on the same inputs: that makes their times comparable."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_in_device import DEVICE, OnDevice, stand_in_device

from asap_export.bench import resident
from asap_export.bench.bundle_model import open_bundle
from asap_export.bench.records import Contender, Workload
from asap_export.bench.staged import Inputs, StagedRunner
from asap_export.bench.torch_model import DenseModel, PrunedModel, open_transformers
from asap_export.bench.workload import drawn_images, fitted
from asap_export.model.anyres import TileGeometry, packing
from asap_export.pruning.config import PruningConfig

VISUAL, TEXT, KEEP = 100, 9, 20


def peer(checkpoint: Path, method: str) -> Contender:
    pruning = asdict(PruningConfig(method=method))
    return Contender("peer", "transformers", str(checkpoint), "transformers-sdpa", "fp32", method, pruning)


@pytest.fixture(scope="module")
def workload(tmp_path_factory, random_checkpoint) -> Workload:
    from random_checkpoint import GEOMETRY

    images = drawn_images(tmp_path_factory.mktemp("images"), VISUAL, 1, GEOMETRY)
    return Workload(tuple(map(str, images)), "What is it?", VISUAL, TEXT, KEEP)


@pytest.fixture(scope="module")
def models(random_checkpoint, dense_bundle, pruned_bundle) -> dict:
    return {
        "dense bundle": open_bundle(dense_bundle, 1),
        "pruned bundle": open_bundle(pruned_bundle, 1),
        "dense peer": open_transformers(peer(random_checkpoint, "none")),
        "pruned peer": open_transformers(peer(random_checkpoint, "asap")),
    }


def read(model, workload: Workload) -> Inputs:
    prompt = model.reader.read(workload.prompt, workload.images)
    ids = fitted(prompt.input_ids.tolist(), model.spec.image_token_id, VISUAL, TEXT)[None]
    gather = packing(prompt.image_sizes, TileGeometry.of(model.spec)).gather_index[:VISUAL]
    return Inputs(ids, prompt.pixel_values, gather, prompt.image_sizes)


def array(value) -> np.ndarray:
    return np.asarray(value) if isinstance(value, torch.Tensor | np.ndarray) else value.numpy()


def test_all_see_the_same_features_and_embeddings(models, workload):
    inputs = {name: read(model, workload) for name, model in models.items()}
    first = inputs["dense bundle"]
    found = {}
    for name, model in models.items():
        assert np.array_equal(inputs[name].input_ids, first.input_ids)
        features = model.vision(inputs[name])
        found[name] = array(features), array(model.embed(inputs[name].input_ids, features))
    for features, embeds in found.values():
        assert features.shape[0] == VISUAL and embeds.shape[1] == VISUAL + TEXT
        np.testing.assert_allclose(features, found["dense bundle"][0], atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(embeds, found["dense bundle"][1], atol=1e-4, rtol=1e-4)


def test_all_have_caches_of_the_same_keys_behind_the_prompt(models, workload):
    for names in (("dense bundle", "dense peer"), ("pruned bundle", "pruned peer")):
        keys = []
        for name in names:
            model = models[name]
            inputs = read(model, workload)
            embeds = model.embed(inputs.input_ids, model.vision(inputs))
            state = model.prefill(embeds, inputs.input_ids == model.spec.image_token_id, KEEP, 2)
            keys.append(last_key(state))
            length = TEXT + (VISUAL if name.startswith("dense") else KEEP)
            assert model.cache_length(state) == length
            valid, held = model.kv_bytes(state)
            spec = model.spec
            assert valid == 2 * 4 * spec.layers * spec.kv_heads * spec.head_dim * length
            assert held >= valid  # caches that grow in place have room to spare
            assert len(model.decode(state, 3)) == 3 and model.cache_length(state) == length
        for other in keys[1:]:
            np.testing.assert_allclose(other, keys[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("method", ["none", "asap"])
def test_a_peer_on_a_device_has_the_same_keys(random_checkpoint, models, workload, method):
    """On a stand-in for a GPU: nothing is left on the host by mistake."""
    on_host = models["dense peer" if method == "none" else "pruned peer"]
    inputs = read(on_host, workload)
    visual_mask = inputs.input_ids == on_host.spec.image_token_id
    loaded = open_transformers(peer(random_checkpoint, method))
    with stand_in_device():
        made = (loaded.llava.to(DEVICE), loaded.spec, loaded.reader)
        there = DenseModel(*made) if method == "none" else PrunedModel(*made, PruningConfig(method=method))
        states = []
        for model in (on_host, there):
            embeds = model.embed(inputs.input_ids, model.vision(inputs))
            states.append(model.prefill(embeds, visual_mask, KEEP, 2))
            assert len(model.decode(states[-1], 2)) == 2
        key = (states[1].past if method == "asap" else states[1].layers)[-1][0]
        assert type(key) is OnDevice
    np.testing.assert_allclose(array(key.host), last_key(states[0]), atol=1e-4, rtol=1e-4)


def last_key(state) -> np.ndarray:
    if hasattr(state, "fed"):
        caches = {**state.layers, **(state.buffers.content(state.mask.shape[1]) if state.buffers else {})}
        return array([tensor for name, tensor in caches.items() if name.endswith("key")][-1])
    layers = state.past if hasattr(state, "past") else state.layers
    return array(layers[-1][0])


@pytest.mark.parametrize("name", ["pruned bundle", "pruned peer", "dense peer"])
def test_a_runner_splits_the_time_to_first_token_and_goes_on_from_any_length(models, workload, name):
    runner = StagedRunner(models[name], resident)
    sample = runner.prefill(workload, 4)
    assert list(sample["seconds"]) == ["preprocess", "vision", "embed", "prefill"]
    assert all(seconds > 0 for seconds in sample["seconds"].values())
    assert len(sample["decode"]) == 3
    assert runner.weights > 0 and sample["peak_above_weights"] >= 0
    runner.cache(7)
    assert len(runner.decode(7, 2)) == len(runner.decode(7, 2)) == 2
    runner.drop()
    assert len(runner.decode(5, 1)) == 1
