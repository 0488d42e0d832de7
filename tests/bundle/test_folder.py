import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bundle_cases import FILES, example_engine, write_bundle

from asap_export.bundle import MANIFEST, Bundle, BundleError, add_engine, sha256_of
from asap_export.progress import Progress


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "out").path


def rewrite(folder: Path, change: Callable[[Any], Any]) -> None:
    document = json.loads((folder / MANIFEST).read_text())
    change(document)
    (folder / MANIFEST).write_text(json.dumps(document))


@contextmanager
def refused(code: str, place: str, words: str) -> Iterator[None]:
    with pytest.raises(BundleError, match=words) as refusal:
        yield
    assert (refusal.value.code, refusal.value.place) == (code, place)


def test_a_bundle_opens_and_knows_its_places(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.graph_path("decoder") == folder / "decoder.onnx"
    assert bundle.decoder_path_for("cpu") == folder / "decoder.cpu.onnx"
    assert bundle.decoder_path_for("cuda") == folder / "decoder.cuda.onnx"
    assert bundle.processor_path.is_dir()
    assert set(bundle.manifest.files) == set(FILES)
    assert bundle.engines("decoder", "tensorrt_rtx") == ()


def test_transformers_is_handed_no_file_that_is_not_listed(folder: Path) -> None:
    bundle = Bundle.open(folder)
    (bundle.processor_path / "chat_template.json").write_text('{"chat_template": "other words"}')
    with refused("unlisted_file", "processor/chat_template.json", "only files that manifest.json lists"):
        _ = bundle.processor_path


def test_a_bundle_may_be_moved_and_may_hold_a_parity_report(folder: Path) -> None:
    moved = folder.rename(folder.parent / "elsewhere")
    Bundle.open(moved).parity_path.write_text("{}")
    assert Bundle.open(moved, hash_all=True).path == moved


@pytest.mark.parametrize("name", ["decoder.onnx", MANIFEST, "weights/model.safetensors"])
def test_a_bundle_whose_file_is_replaced_behind_its_opening_is_refused(folder: Path, name: str) -> None:
    bundle = Bundle.open(folder)
    bundle.check_unchanged()
    (folder / "new").write_bytes((folder / name).read_bytes())  # the same content: another file all the same
    (folder / "new").replace(folder / name)
    with refused(
        "changed", name, f"to stay as it is while it is loaded, found another {name}; load it again"
    ):
        bundle.check_unchanged()


def test_a_bundle_that_is_replaced_as_a_whole_or_goes_is_refused(folder: Path) -> None:
    bundle, other = Bundle.open(folder), write_bundle(folder.parent / "other").path
    folder.rename(folder.parent / "before")
    with refused("changed", MANIFEST, "found another manifest.json"):
        bundle.check_unchanged()
    other.rename(folder)
    with refused("changed", MANIFEST, "found another manifest.json"):
        bundle.check_unchanged()


def test_opening_tells_where_it_stands(folder: Path) -> None:
    seen: list[Progress] = []
    Bundle.open(folder, hash_all=True, progress=seen.append)
    assert seen[-1].fraction == 1.0


def test_sha256_of_is_the_sha256_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("weights/")])
def test_an_altered_file_of_the_same_size_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_text()
    (folder / name).write_text(content.replace(content[-1], "#"))
    with refused("wrong_hash", name, rf"expected sha256 .* of {name}"):
        Bundle.open(folder)


def test_altered_weights_are_refused_where_weights_are_hashed(folder: Path) -> None:
    (folder / "weights/model.safetensors").write_text("numbery")
    Bundle.open(folder)
    name = "weights/model.safetensors"
    with refused("wrong_hash", name, rf"expected sha256 .* of {name}"):
        Bundle.open(folder, hash_all=True)


def test_an_altered_engine_is_refused_where_all_is_hashed(folder: Path, tmp_path: Path) -> None:
    built = tmp_path / "built"
    built.write_text("kernels")
    engine = example_engine("1.7")
    add_engine(Bundle.open(folder), engine, built)
    (folder / engine.file).write_text("Kernels")
    bundle = Bundle.open(folder)
    for check in (bundle.check_large_files, lambda: Bundle.open(folder, hash_all=True)):
        with refused("wrong_hash", engine.file, f"expected sha256 .* of {engine.file}"):
            check()
    (folder / engine.file).write_text("more kernels")
    with refused("wrong_size", engine.file, f"expected 7 bytes in {engine.file}, found 12"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_size_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("something longer")
    with refused("wrong_size", name, rf"bytes in {name}, found 16"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with refused("missing_file", name, rf"expected {name} in .*, found no such file"):
        Bundle.open(folder)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, found in [(tmp_path / "none", "nothing"), (tmp_path / "file", "a file")]:
        with refused("no_bundle", "", f"expected a bundle folder at .*, found {found}"):
            Bundle.open(path)
    with refused("missing_file", MANIFEST, r"expected manifest.json in"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "weights/../../secret", "./config.json", "a//b", "C:/x", "..\\x"]
)
def test_a_path_that_leads_outside_is_refused(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_text("numbers")
    rewrite(folder, lambda document: document["files"].update({name: {"sha256": "0" * 64, "size": 7}}))
    with refused("outside", name, "expected a path inside the bundle"):
        Bundle.open(folder)


def test_a_link_that_leads_outside_is_refused(folder: Path) -> None:
    weights = folder / "weights/model.safetensors"
    (folder.parent / "weights").write_text("numbers")
    weights.unlink()
    weights.symlink_to(folder.parent / "weights")
    with refused("outside", "weights/model.safetensors", "found a link to"):
        Bundle.open(folder)


def test_a_link_to_itself_is_refused(folder: Path) -> None:
    weights = folder / "weights" / "model.safetensors"
    weights.unlink()
    weights.symlink_to(weights.name)
    with refused("unreadable", "", "found Too many levels of symbolic links: "):
        Bundle.open(folder)


@pytest.mark.parametrize("name", ["decoder.onnx", "decoder.cpu.onnx", "decoder.cuda.onnx"])
def test_a_graph_outside_the_hash_list_is_refused(folder: Path, name: str) -> None:
    rewrite(folder, lambda document: document["files"].pop(name))
    with refused("unlisted_file", name, rf"expected {name} among the files of manifest.json"):
        Bundle.open(folder)


def test_an_interrupted_export_is_refused_even_with_its_manifest(folder: Path) -> None:
    partial = folder.rename(folder.parent / ".out.partial-1-00")
    with refused("unfinished", "", "interrupted export"):
        Bundle.open(partial)


def test_what_is_no_file_is_not_read_for_a_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    os.mkfifo(folder / MANIFEST)  # whose reader would wait for ever
    with refused("unreadable", MANIFEST, "expected a readable manifest.json"):
        Bundle.open(folder)
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).symlink_to("/dev/zero")
    with refused("unreadable", MANIFEST, "expected a readable manifest.json"):
        Bundle.open(folder)


def test_a_manifest_is_measured_before_it_is_read(folder: Path) -> None:
    os.truncate(folder / MANIFEST, 1 << 40)
    with refused("too_large", "$", f"found {1 << 40}"):
        Bundle.open(folder)
