"""Every contender does the same work on the same inputs: that makes their times comparable."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asap_export.bench import resident
from asap_export.bench.bundle_model import open_bundle
from asap_export.bench.records import Contender, Workload
from asap_export.bench.staged import Inputs, StagedRunner
from asap_export.bench.torch_model import attend_eagerly, open_transformers
from asap_export.bench.workload import drawn_images, fitted
from asap_export.errors import UserError
from asap_export.model.anyres import TileGeometry, packing
from asap_export.model.attention import attend
from asap_export.pruning.config import PruningConfig

VISUAL, TEXT, KEEP = 100, 9, 20


def peer(checkpoint: Path, method: str, attention: str) -> Contender:
    pruning = asdict(PruningConfig(method=method))
    return Contender("peer", "transformers", str(checkpoint), attention, "fp32", method, pruning, attention)


def compiled_peer(checkpoint: Path) -> Contender:
    return replace(peer(checkpoint, "none", "sdpa"), compiled=True)


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
        **{
            f"{method} {attention}": open_transformers(peer(random_checkpoint, method, attention))
            for method in ("none", "asap")
            for attention in ("sdpa", "eager")
        },
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
    for names in (("dense bundle", "none sdpa", "none eager"), ("pruned bundle", "asap sdpa", "asap eager")):
        keys = []
        for name in names:
            model = models[name]
            inputs = read(model, workload)
            embeds = model.embed(inputs.input_ids, model.vision(inputs))
            state = model.prefill(embeds, inputs.input_ids == model.spec.image_token_id, KEEP, 2)
            keys.append(last_key(state))
            length = TEXT + (VISUAL if name.startswith(("dense", "none")) else KEEP)
            assert model.cache_length(state) == length
            valid, held = model.kv_bytes(state)
            spec = model.spec
            assert valid == 2 * 4 * spec.layers * spec.kv_heads * spec.head_dim * length
            assert held >= valid  # caches that grow in place have room to spare
            assert len(model.decode(state, 3)) == 3 and model.cache_length(state) == length
        for other in keys[1:]:
            np.testing.assert_allclose(other, keys[0], atol=1e-3, rtol=1e-3)


def test_the_compiled_peer_s_static_cache_holds_the_same_keys(
    random_checkpoint, models, workload, monkeypatch
):
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)  # takes minutes, and adds no arithmetic
    compiled, dense = open_transformers(compiled_peer(random_checkpoint)), models["none sdpa"]
    inputs = read(compiled, workload)
    embeds = compiled.embed(inputs.input_ids, compiled.vision(inputs))
    visual_mask = inputs.input_ids == compiled.spec.image_token_id
    state = compiled.prefill(embeds, visual_mask, KEEP, room=3)
    expected = dense.prefill(embeds, visual_mask, KEEP, room=3)
    for _ in range(2):  # what decoded tokens wrote is written over
        assert len(compiled.decode(state, 3)) == 3 and compiled.cache_length(state) == VISUAL + TEXT
        found = state[0].layers[-1].keys[:, :, : VISUAL + TEXT]
        np.testing.assert_allclose(array(found), last_key(expected), atol=1e-4, rtol=1e-4)
    valid, held = compiled.kv_bytes(state)
    assert valid == dense.kv_bytes(expected)[0] and held == valid // (VISUAL + TEXT) * (VISUAL + TEXT + 3)


def test_where_nothing_compiles_there_is_a_line(random_checkpoint, models, workload, monkeypatch):
    def without_a_compiler(**_):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\n  tried g++")

    monkeypatch.setattr(torch, "compile", lambda module, **_: without_a_compiler)
    compiled = open_transformers(compiled_peer(random_checkpoint))
    inputs = read(compiled, workload)
    embeds = compiled.embed(inputs.input_ids, compiled.vision(inputs))
    with pytest.raises(UserError, match=r"found: InvalidCxxCompiler: No working C\+\+ compiler found$"):
        compiled.prefill(embeds, inputs.input_ids == compiled.spec.image_token_id, KEEP, 1)


def last_key(state) -> np.ndarray:
    if hasattr(state, "fed"):
        caches = {**state.layers, **(state.buffers.content(state.mask.shape[1]) if state.buffers else {})}
        return array([tensor for name, tensor in caches.items() if name.endswith("key")][-1])
    layers = state.past if hasattr(state, "past") else state.layers
    return array(layers[-1][0])


@pytest.mark.parametrize("name", ["pruned bundle", "asap sdpa", "none eager"])
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


@pytest.mark.parametrize("observed", [False, True])
def test_eager_attention_is_the_same_arithmetic(observed):
    noise = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 5, 8, generator=noise)
    key, value = (torch.randn(1, 2, 7, 8, generator=noise) for _ in range(2))
    mask = torch.ones(1, 1, 5, 7, dtype=torch.bool).tril(2)
    bias = torch.randn(1, 1, 5, 7, generator=noise)
    observe = (lambda *_: bias) if observed else None
    expected, _ = attend(torch.nn.Module(), query, key, value, mask, 0.3, observe)
    found, _ = attend_eagerly(torch.nn.Module(), query, key, value, mask, 0.3, observe)
    torch.testing.assert_close(found, expected)
