"""``verify --layers``: finds what is wrong in the layers it compares, says which it does not, reads no others."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from damaged_bundles import change_tensor

from asap_export.bundle import Bundle
from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.errors import UserError
from asap_export.parity import verify
from asap_export.parity.comparison_memory import memory_needed
from asap_export.pruning.config import Budget

IMAGES = (Path(__file__).parents[2] / "examples" / "images" / "mat.png",)


def swap_rows(weight):
    weight[[0, 1]] = weight[[1, 0]]


def failures(report):
    return {check.name for check in report.checks if check.verdict == "FAIL"}


@pytest.mark.parametrize(
    "name, layers", [("pruned_bundle", 3), ("untrimmed_bundle", 5), ("dense_bundle", 1), ("fp16_bundle", 4)]
)
def test_the_first_layers_of_a_sound_bundle_pass(name, layers, request):
    report = verify(request.getfixturevalue(name), provider="cpu", layers=layers, max_new_tokens=2)
    assert report.verdict == "PASS", failures(report)
    assert (report.layers, report.all_layers) == (layers, 8)
    caches = {int(check.name.split(".")[1]) for check in report.checks if check.name.startswith("present.")}
    assert caches == set(range(layers))
    assert {"logits", "image_features", "inputs_embeds"} <= {check.name for check in report.checks}
    cases = {check.case for check in report.checks}
    assert {"a batch", "a later turn with an image", "a later turn with an image, turn 2"} <= cases
    assert f"only the first {layers} of 8 decoder layers were compared" in report.notes[0]


def test_as_many_tokens_are_kept_as_in_the_whole_model(pruned_bundle, tmp_path):
    """A budget that is an average over layers means those of the model, not those that are compared."""
    folder = shutil.copytree(pruned_bundle, tmp_path / "bundle")
    manifest = Bundle.open(folder).manifest
    average = replace(manifest, budget=Budget(layer_average=manifest.model.max_visual_tokens / 2))
    (folder / "manifest.json").write_text(average.text())
    report = verify(folder, provider="cpu", images=IMAGES, layers=3, max_new_tokens=2)
    expected = average.budget.keep_for(268, 8, manifest.pruning.prune_after)
    assert any(f" of {expected} kept visual tokens" in check.detail for check in report.checks)


def test_a_wrong_weight_is_found_among_the_first_layers_only(pruned_bundle, tmp_path):
    name = "decoder.language_model.layers.{}.mlp.down_proj.weight"
    early = change_tensor(pruned_bundle, tmp_path / "early", name.format(1), swap_rows)
    assert "present.2.key" in failures(verify(early, provider="cpu", layers=3, max_new_tokens=1))

    late = change_tensor(pruned_bundle, tmp_path / "late", name.format(5), swap_rows)
    report = verify(late, provider="cpu", layers=3, max_new_tokens=1)
    assert report.verdict == "PASS"
    assert "layers 4 to 8 were not" in report.notes[0]
    assert "present.6.key" in failures(verify(late, provider="cpu", images=IMAGES, max_new_tokens=1))


@pytest.mark.parametrize("layers", [0, 2, 9])
def test_layers_without_the_cut_or_that_are_not_there_are_refused(pruned_bundle, layers):
    with pytest.raises(UserError, match=rf"layers between 3 and 8, because the cut .* 2, found {layers}"):
        verify(pruned_bundle, layers=layers)


def test_engines_cannot_be_shortened(pruned_bundle):
    with pytest.raises(UserError, match="provider cpu or cuda with layers, found tensorrt"):
        verify(pruned_bundle, layers=3, provider="tensorrt")


def test_too_little_memory_is_said_before_anything_is_read(pruned_bundle, random_checkpoint, monkeypatch):
    checkpoint, manifest = open_checkpoint(random_checkpoint), Bundle.open(pruned_bundle).manifest
    all_layers, four = (memory_needed(checkpoint, manifest, layers) for layers in (None, 4))
    parameters = sum(tensor.nbytes // 2 for tensor in checkpoint.tensors.values())  # stored in fp16
    assert 4 * parameters < all_layers < 50 * parameters
    assert four < all_layers
    seen = []
    monkeypatch.setattr("asap_export.parity.comparison_memory.available_memory", lambda: four)
    with pytest.raises(
        UserError, match=r"\d GB of free memory to compare all 8 layers .*; use layers 4, which"
    ):
        verify(pruned_bundle, progress=seen.append)
    assert {stand.stage for stand in seen} == {"Check bundle"}
    monkeypatch.setattr("asap_export.parity.comparison_memory.available_memory", lambda: 0)
    with pytest.raises(UserError, match="free some, or verify on another machine"):
        verify(pruned_bundle, layers=3)


def test_a_shard_that_is_linked_into_the_bundle_is_hashed_once(fp16_bundle, random_checkpoint, tmp_path):
    checkpoint = shutil.copytree(random_checkpoint, tmp_path / "checkpoint")
    bundle = shutil.copytree(fp16_bundle, tmp_path / "bundle")
    shard = bundle / "weights" / "model.safetensors"
    shard.unlink()
    os.link(checkpoint / "model.safetensors", shard)
    seen = []
    verify(bundle, model=str(checkpoint), provider="cpu", layers=3, max_new_tokens=1, progress=seen.append)
    hashed = {stand.stage: {s.detail for s in seen if s.stage == stand.stage} for stand in seen}
    assert "weights/model.safetensors" in hashed["Check bundle"]
    assert "config.json" in hashed["Hash checkpoint"]
    assert "model.safetensors" not in hashed["Hash checkpoint"]
