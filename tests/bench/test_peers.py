"""Who takes part beside the bundles, and what each row says of its precision."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import contender, plan

from asap_export.bench import peers
from asap_export.bench.peers import Peers
from asap_export.bench.processes import Child, command_of
from asap_export.bench.schedule import measure
from asap_export.progress import no_progress
from asap_export.pruning.config import PruningConfig


@pytest.fixture
def some_peers(tmp_path) -> Peers:
    return Peers(tmp_path / "checkpoint", tmp_path, [], no_progress)


def test_transformers_runs_in_float32_and_in_bf16_each_dense_and_pruned(some_peers, monkeypatch):
    monkeypatch.setattr(peers, "bf16_instructions", lambda: True)
    found = some_peers.transformers(PruningConfig(), "fp32", "openvino")
    assert [(each.name, each.dtype, each.computes, each.method, each.family) for each in found] == [
        ("transformers-sdpa", "fp32", "f32", "none", "transformers-sdpa"),
        ("transformers-sdpa-asap", "fp32", "f32", "asap", "transformers-sdpa"),
        ("transformers-sdpa-bf16", "bf16", "bf16", "none", "transformers-sdpa-bf16"),
        ("transformers-sdpa-bf16-asap", "bf16", "bf16", "asap", "transformers-sdpa-bf16"),
    ]
    assert some_peers.skipped == []


def test_where_a_cpu_has_no_bf16_that_is_said(some_peers, monkeypatch):
    monkeypatch.setattr(peers, "bf16_instructions", lambda: False)
    assert {each.dtype for each in some_peers.transformers(PruningConfig(), "fp32", "cpu")} == {"fp32"}
    reason = "this CPU has no instructions for bf16"
    assert some_peers.skipped == [{"name": "transformers-sdpa-bf16", "reason": reason}]


def test_on_a_device_transformers_has_the_bundles_dtype(some_peers):
    found = some_peers.transformers(PruningConfig(), "fp16", "cuda")
    assert [(each.name, each.dtype, each.provider) for each in found] == [
        ("transformers-sdpa", "fp16", "cuda"),
        ("transformers-sdpa-asap", "fp16", "cuda"),
    ]


def test_openvino_genai_has_a_row_for_each_precision(some_peers, tmp_path, monkeypatch):
    """What was converted earlier is used again."""
    monkeypatch.setattr(peers, "bf16_instructions", lambda: True)
    for weights in ("fp32", "int8", "int4"):
        (tmp_path / f"openvino-{weights}").mkdir()
    found = some_peers.openvino_genai("python", "fp32")
    assert [(each.name, each.dtype, each.computes, each.precision) for each in found] == [
        ("openvino-genai", "bf16", "bf16", "auto"),
        ("openvino-genai-f32", "f32", "f32", "f32"),
        ("openvino-genai-int8", "bf16 int8", "int8", "auto"),
        ("openvino-genai-int4", "bf16 int4", "int8", "auto"),
    ]
    assert [Path(each.source).name for each in found] == [
        "openvino-fp32", "openvino-fp32", "openvino-int8", "openvino-int4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("python", "said"),
    [("no-such-python", "expected a Python at no-such-python, found: No such file"),
     (sys.executable, "to convert the checkpoint, found: ")],
)  # fmt: skip
def test_what_cannot_be_converted_is_left_out_with_the_reason(some_peers, python, said):
    assert some_peers.openvino_genai(python, "fp32") == []
    assert [row["name"] for row in some_peers.skipped] == [
        "openvino-genai", "openvino-genai-f32", "openvino-genai-int8", "openvino-genai-int4",
    ]  # fmt: skip
    assert all(said in row["reason"] for row in some_peers.skipped)


def test_openvino_genai_runs_under_its_own_python_without_this_one_s_packages(tmp_path):
    """An empty environment: all that it misses is OpenVINO GenAI itself."""
    genai = contender("genai", kind="openvino-genai")
    asked = replace(genai, program=sys.executable)
    program, *arguments = command_of(asked)
    (measured,) = measure([asked], plan(tmp_path), command=lambda _: [program, "-S", *arguments])
    assert measured.failed.startswith("expected the Python package openvino_genai, found none; pip install")


def test_a_server_that_a_contender_started_ends_with_it(tmp_path):
    program = (
        "import subprocess, sys; server = subprocess.Popen(['sleep', '60']); sys.stdin.readline();"
        "print('{\"weights\": %d}' % server.pid, flush=True); sys.stdin.readline()"
    )
    with Child(contender("A"), 1, tmp_path, lambda _: [sys.executable, "-c", program]) as child:
        server = Path(f"/proc/{child.weights}/stat")
        assert server.exists()
    deadline = time.monotonic() + 10
    while server.exists() and server.read_text().split()[2] != "Z":  # a signal takes a moment
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_llama_cpp_needs_its_server(some_peers, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert some_peers.llama_cpp() == []
    assert some_peers.skipped == [{"name": "llama.cpp", "reason": "there is no llama-server on PATH"}]
