"""OpenVINO in C++: in f32 the answers of Python's OpenVINO and of ONNX Runtime, token for token."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from damaged_bundles import rewrite_manifest
from installed_command import IMAGES

import asap_export
from cpp.programs import BUILD, OPENVINO_BACKEND, answers, infer
from cpp.refusals import cpp_line, python_line
from cpp.test_same_answers import CONVERSATIONS, from_cpp

pytestmark = pytest.mark.skipif(
    not OPENVINO_BACKEND.exists(), reason="the C++ runtime is not built with OpenVINO: make cpp"
)
pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'asap-export[openvino]'")

ASKED = ("--prompt", "What is on the mat?", "--image", IMAGES / "mat.png")
F32 = ("--provider", "openvino", "--precision", "f32")
LIMIT = "--max-new-tokens", "8"


@pytest.mark.parametrize("name", ["pruned_bundle", "dense_bundle", "untrimmed_bundle", "fp16_bundle"])
def test_conversations_go_as_in_python(request: pytest.FixtureRequest, name: str) -> None:
    bundle: Path = request.getfixturevalue(name)
    for turns in (CONVERSATIONS["three turns"], CONVERSATIONS["no image"]):
        chat = asap_export.load(bundle, "openvino", 1, "f32").chat()
        expected = [chat.ask(turn.images, turn.prompt, max_new_tokens=8) for turn in turns]
        found = from_cpp(bundle, turns, *LIMIT, *F32)
        assert [turn["token_ids"] for turn in found] == [list(turn.token_ids) for turn in expected]
        assert [turn["kept_index"] for turn in found] == [list(turn.kept_index) for turn in expected]


@pytest.mark.parametrize("name", ["pruned_bundle", "dense_bundle", "untrimmed_bundle"])
def test_conversations_go_as_in_onnx_runtime(request: pytest.FixtureRequest, name: str) -> None:
    bundle: Path = request.getfixturevalue(name)
    turns = CONVERSATIONS["three turns"]
    inside, outside = from_cpp(bundle, turns, *LIMIT, *F32), from_cpp(bundle, turns, *LIMIT)
    for found, expected in zip(inside, outside, strict=True):
        assert {**found, "timings": None} == {**expected, "timings": None}


def test_threads_and_branches_of_a_conversation(pruned_bundle: Path) -> None:
    """What only a program can ask for, by the library's own tests."""
    command = [BUILD / "tests" / "asap-tests", "--gtest_filter=OpenVino.*"]
    done = subprocess.run(
        command, env=os.environ | {"ASAP_BUNDLE": str(pruned_bundle)}, capture_output=True, text=True
    )
    assert done.returncode == 0 and "SKIPPED" not in done.stdout, done.stdout


@pytest.mark.parametrize("precision", ["auto", "f32"])
def test_the_trained_demo_answers(demo_bundle: Path, precision: str) -> None:
    asked = ("--image", IMAGES / "things.png", "--prompt", "What number is in the red box?")
    [answer] = answers(demo_bundle, *asked, "--provider", "openvino", "--precision", precision)
    assert (answer["text"], answer["kept_visual_tokens"]) == ("2", 154)


def test_bf16_runs_where_the_cpu_has_instructions_for_it(pruned_bundle: Path) -> None:
    asked = (pruned_bundle, *ASKED, *LIMIT, "--provider", "openvino", "--precision", "bf16")
    try:
        model = asap_export.load(pruned_bundle, "openvino", precision="bf16")
    except asap_export.UserError as refusal:
        assert cpp_line(*asked) == f"error: {refusal.message}\n"
    else:
        [answer] = answers(*asked)
        assert answer["token_ids"] == list(model.generate(ASKED[-1], ASKED[1], max_new_tokens=8).token_ids)


def test_bf16_on_one_thread(pruned_bundle: Path) -> None:
    """OpenVINO would end the process there."""
    alone = (pruned_bundle, *ASKED, *LIMIT, "--provider", "openvino", "--threads", "1")
    assert answers(*alone) and cpp_line(*alone, "--precision", "bf16").endswith("; use --precision f32\n")


def test_a_precision_of_another_provider(pruned_bundle: Path) -> None:
    line = python_line(lambda: asap_export.load(pruned_bundle, "cpu", precision="bf16"))
    assert cpp_line(pruned_bundle, *ASKED, "--provider", "cpu", "--precision", "bf16") == line


@pytest.fixture
def copied(pruned_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pruned_bundle, tmp_path / "bundle"))


@pytest.mark.parametrize(
    "name", ["decoder.early.inlined.onnx", "decoder.late.inlined.onnx", "embed_tokens.onnx"]
)
def test_a_graph_that_is_none(copied: Path, name: str) -> None:
    """C++ asks the reader of ONNX alone, which has words of its own; the rest of the line is the same."""
    (copied / name).write_bytes(b"no graph")
    rewrite_manifest(copied, name)
    here = python_line(lambda: asap_export.load(copied, "openvino", 1, "f32"))
    there = cpp_line(copied, *ASKED, *F32)
    assert there.partition("found:")[0] == here.partition("found:")[0]
    assert "expected a graph for OpenVINO " in there


def test_a_bundle_of_an_older_version(copied: Path) -> None:
    document = json.loads((copied / "manifest.json").read_text())
    del document["files"]["decoder.late.inlined.onnx"]
    (copied / "manifest.json").write_text(json.dumps(document))
    line = python_line(lambda: asap_export.load(copied, "openvino"))
    assert "an older version made it" in line
    assert cpp_line(copied, *ASKED, "--provider", "openvino") == line


def test_a_machine_without_openvino(pruned_bundle: Path, tmp_path: Path) -> None:
    """Other providers run there: only the backend is linked with OpenVINO."""
    done = subprocess.run(
        ["cmake", "--install", BUILD, "--prefix", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for library in tmp_path.rglob("libopenvino*"):
        library.unlink()
    said = subprocess.run(
        [tmp_path / "bin" / "asap-infer", pruned_bundle, *ASKED, *F32], capture_output=True, text=True
    )
    assert said.returncode == 2 and said.stdout == ""
    assert said.stderr.startswith("error: expected OpenVINO and libasap_openvino.so, found: libopenvino.so.")
    assert said.stderr.endswith("; add its folder to LD_LIBRARY_PATH, or use --provider cpu\n")
    assert infer(pruned_bundle, *ASKED, *LIMIT, "--provider", "cpu").stdout
