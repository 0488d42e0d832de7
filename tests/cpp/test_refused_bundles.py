"""Bundles that were damaged, and those that only look so: Python and C++ say the same of each."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damaged_bundles import rewrite_manifest
from installed_command import IMAGES

import asap_export
from asap_export.bundle import SCHEMA_VERSION
from cpp.programs import infer, needs_programs
from cpp.refusals import cpp_line, python_line

pytestmark = needs_programs

MAT = IMAGES / "mat.png"


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Alters the manifest's document."""

    def damage(bundle: Path) -> None:
        document = json.loads((bundle / "manifest.json").read_text())
        change(document)
        (bundle / "manifest.json").write_text(json.dumps(document))

    return damage


def altered(name: str) -> Callable[[Path], None]:
    """One bit in the middle."""

    def damage(bundle: Path) -> None:
        content = bytearray((bundle / name).read_bytes())
        content[len(content) // 2] ^= 1
        (bundle / name).write_bytes(content)

    return damage


def truncated(name: str) -> Callable[[Path], None]:
    return lambda bundle: (bundle / name).write_bytes((bundle / name).read_bytes()[:-1]) and None


def missing(name: str) -> Callable[[Path], None]:
    return lambda bundle: (bundle / name).unlink()


def pretending(name: str, content: bytes) -> Callable[[Path], None]:
    """Another file, for which the manifest is made to fit."""

    def damage(bundle: Path) -> None:
        (bundle / name).write_bytes(content)
        rewrite_manifest(bundle, name)

    return damage


def outside(bundle: Path) -> None:
    (bundle / "config.json").rename(bundle.parent / "elsewhere.json")
    (bundle / "config.json").symlink_to(bundle.parent / "elsewhere.json")


WEIGHTS = "weights/decoder.fp32.safetensors"
DAMAGE: dict[str, Callable[[Path], object]] = {
    **{f"{name}, truncated": truncated(name) for name in ("decoder.onnx", "tokenizer.json", WEIGHTS)},
    **{
        f"{name}, altered": altered(name)
        for name in (
            "vision_encoder.onnx",
            "decoder.onnx",
            "decoder.cpu.onnx",
            "tokenizer.json",
            "preprocess.onnx",
            "config.json",
        )
    },
    **{
        f"{name}, missing": missing(name)
        for name in ("embed_tokens.onnx", "decoder.cpu.onnx", "manifest.json", WEIGHTS)
    },
    "a later schema": edited(lambda document: document.update(schema_version=SCHEMA_VERSION + 1)),
    "an earlier schema": edited(lambda document: document.update(schema_version=2)),
    "a value of another kind": edited(lambda document: document["model"].update(layers="eight")),
    "a field less": edited(lambda document: document.pop("prompt")),
    "a decoder that is not listed": edited(lambda document: document["files"].pop("decoder.cpu.onnx")),
    "a path that leads outside": edited(
        lambda document: document["files"].update({"../secret": {"sha256": "0" * 64, "size": 7}})
    ),
    "a link that leads outside": outside,
    "no bundle": lambda bundle: [shutil.rmtree(bundle), bundle.mkdir()],
    "no folder": shutil.rmtree,
    "a file": lambda bundle: [shutil.rmtree(bundle), bundle.write_text("no folder")],
}


@pytest.fixture
def copied(pruned_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(pruned_bundle, tmp_path / "copy.bundle")


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_damaged_bundle(copied: Path, fault: str) -> None:
    DAMAGE[fault](copied)
    line = python_line(lambda: asap_export.load(copied, provider="cpu"))
    assert cpp_line(copied, "--prompt", "x", "--provider", "cpu") == line


@pytest.fixture
def cached(pruned_bundle: Path, tmp_path: Path) -> Path:
    """As Hugging Face's cache has it: files of a revision are links to blobs, which bear their hashes as names."""
    home = tmp_path / "models--org--bundle"
    bundle = shutil.copytree(pruned_bundle, home / "snapshots" / "0123abc")
    (home / "blobs").mkdir()
    for number, file in enumerate(file for file in sorted(bundle.glob("**/*")) if file.is_file()):
        blob = file.rename(home / "blobs" / f"{number:040x}")
        file.symlink_to(os.path.relpath(blob, file.parent))
    return bundle


def test_a_bundle_in_hugging_face_s_cache_answers(cached: Path) -> None:
    answer = asap_export.load(cached, provider="cpu", threads=1).generate([MAT], "What?", max_new_tokens=4)
    arguments = [
        "--prompt",
        "What?",
        "--provider",
        "cpu",
        "--threads",
        "1",
        "--max-new-tokens",
        "4",
        "--json",
    ]
    done = infer(cached, *arguments, "--image", str(MAT))
    assert tuple(json.loads(done.stdout)["token_ids"]) == answer.token_ids


@pytest.mark.parametrize("place", ["../../../elsewhere", "../../blobs/below/it", "../../blobs-not"])
def test_a_link_that_leads_out_of_the_cache(cached: Path, place: str) -> None:
    other = cached / place
    other.parent.mkdir(parents=True, exist_ok=True)
    (cached / "decoder.onnx").resolve().rename(other)
    (cached / "decoder.onnx").unlink()
    (cached / "decoder.onnx").symlink_to(place)
    line = python_line(lambda: asap_export.load(cached, provider="cpu"))
    assert "expected decoder.onnx inside the bundle, found a link to" in line
    assert cpp_line(cached, "--prompt", "x", "--provider", "cpu") == line


@pytest.mark.parametrize("text", ["", "{'single': 'quotes'}", '{"schema_version": 5, "graphs": {'])
def test_a_manifest_that_is_no_json(copied: Path, text: str) -> None:
    """Each JSON parser says in its own words what is wrong; the rest of the line is the same."""
    (copied / "manifest.json").write_text(text)
    here = python_line(lambda: asap_export.load(copied, provider="cpu"))
    for line in (here, cpp_line(copied, "--prompt", "x", "--provider", "cpu")):
        assert line.startswith("error: expected JSON at $ of manifest.json, found ")
        assert line.endswith(" (invalid_json); export the bundle again\n")


@pytest.mark.parametrize("name", ["decoder.cpu.onnx", "preprocess.onnx", "vision_encoder.onnx"])
def test_a_graph_that_is_none(copied: Path, name: str) -> None:
    pretending(name, b"no graph")(copied)
    line = python_line(lambda: asap_export.load(copied, provider="cpu"))
    assert cpp_line(copied, "--prompt", "x", "--provider", "cpu") == line


def test_a_tokenizer_that_is_none(copied: Path) -> None:
    """Only C++ reads this file; Python has the checkpoint's own."""
    pretending("tokenizer.json", b'{"model": 3}')(copied)
    assert "tokenizer.json" in cpp_line(copied, "--prompt", "x", "--provider", "cpu")
