import json
import shutil
from dataclasses import replace
from pathlib import Path

import installed_command
import onnx
import pytest
from command import refused, run
from installed_command import IMAGES
from short_checkpoint import write_short_checkpoint

from asap_export.bundle import FileInfo, sha256_of
from asap_export.bundle.folder import read_manifest


@pytest.fixture
def copy(pruned_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pruned_bundle, tmp_path / "bundle", ignore=shutil.ignore_patterns("parity.json"))


def test_a_sound_bundle_passes_and_keeps_the_report(copy: Path) -> None:
    said = installed_command.run("verify", copy).stdout.splitlines()
    assert [line.split()[:2] for line in said[:5]] == [
        ["✓", level] for level in ("inputs", "operators", "graphs", "cut", "answers")
    ]
    assert said[5].startswith("PASS") and said[-1].startswith(f"next: asap-export run {copy}")
    everything = run("verify", copy, "--image", IMAGES / "mat.png", "--verbose").stdout
    assert "AsapMerge.merged" in everything and "keys of all layers" in everything
    assert json.loads((copy / "parity.json").read_text())["verdict"] == "PASS"
    assert json.loads(run("inspect", copy, "--json").stdout)["parity"]


def test_the_first_layers_alone(copy: Path) -> None:
    done = run("verify", copy, "--layers", "3")
    said = " ".join(done.stdout.split())
    assert "note: only the first 3 of 8 decoder layers were compared" in said
    assert "PASS 3 of 8 layers, " in said
    assert json.loads((copy / "parity.json").read_text())["layers"] == 3
    assert "expected --layers between 3 and 8" in refused("verify", copy, "--layers", "2")


def test_a_fault_in_a_graph_fails_with_status_1(copy: Path) -> None:
    graph = copy / "decoder.onnx"
    model = onnx.load(graph, load_external_data=False)
    [merge] = [node for node in model.graph.node if node.op_type == "AsapMerge"]
    [threshold] = [attribute for attribute in merge.attribute if attribute.name == "threshold"]
    threshold.f = 2.0  # no pair of tokens is that similar, so nothing merges
    graph.write_bytes(model.SerializeToString())
    manifest = read_manifest(copy)
    info = FileInfo(sha256_of(graph), graph.stat().st_size)
    fitting = replace(manifest, files={**manifest.files, "decoder.onnx": info})
    (copy / "manifest.json").write_text(fitting.text())

    facts = json.loads(run("verify", copy, "--image", IMAGES / "mat.png", "--json", status=1).stdout)
    assert facts["verdict"] == "FAIL"
    assert "AsapMerge.absorbed" in {check["name"] for check in facts["checks"] if check["verdict"] == "FAIL"}


def test_weights_that_changed_are_refused(copy: Path) -> None:
    weights = max((copy / "weights").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()
    weights.write_bytes(content)
    assert refused("verify", copy).startswith("error: expected sha256 ")
    assert not (copy / "parity.json").exists()


def test_images_are_looked_at_before_anything_is_hashed(copy: Path, tmp_path: Path) -> None:
    (copy / "decoder.onnx").write_bytes(b"damaged")
    (tmp_path / "text.png").write_text("no image")
    assert "expected an image file at nowhere.png" in refused("verify", copy, "--image", "nowhere.png")
    assert "found another kind of file" in refused("verify", copy, "--image", tmp_path / "text.png")


def test_a_model_that_is_another_is_refused(copy: Path, random_checkpoint: Path, tmp_path: Path) -> None:
    other = shutil.copytree(random_checkpoint, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    done = run("verify", copy, "--model", other, status=2)
    assert "give the right one with --model" in done.stderr.splitlines()[-1]
    assert "expected a bundle folder" in refused("verify", tmp_path / "nowhere")


@pytest.mark.long
def test_a_bf16_bundle_cannot_run_on_a_cpu_and_is_checked_through_a_float32_copy(tmp_path: Path) -> None:
    model = write_short_checkpoint(tmp_path / "short")
    run("--model", model, "--dtype", "bf16", "-o", "out", folder=tmp_path)
    said = refused("run", "out", "--prompt", "What?", "--provider", "cpu", folder=tmp_path)
    assert "found bf16, which needs CUDA or TensorRT" in said
    said = run("verify", "out", "--provider", "cpu", "--image", IMAGES / "mat.png", folder=tmp_path).stdout
    assert "what was checked is a float32 copy" in " ".join(said.split())
    assert "\nPASS" in said
