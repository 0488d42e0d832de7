"""The report on a CUDA device, rehearsed on a CPU: everything runs, and what is missing has its reason there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

from gpu_check import parsed  # noqa: E402
from on_gpu.steps import Absent, Steps  # noqa: E402


def gpu_check(*options: str | Path) -> subprocess.CompletedProcess[str]:
    """As on a machine without a device, and without the project installed or on the path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, TOOLS / "gpu_check.py", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def results(report: dict, part: str) -> dict:
    steps = report["parts"][part]["steps"]
    return {name: step["result"] for name, step in steps.items() if step["state"] == "done"}


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory) -> tuple[dict, str]:
    file = tmp_path_factory.mktemp("report") / "report.json"
    parts = "operators,eval,onnxruntime,tensorrt"  # bench would take minutes
    done = gpu_check("--rehearse", "--rounds", "1", "--parts", parts, "--json", file)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text()), done.stdout


def test_a_rehearsal_is_never_taken_for_a_measurement(rehearsal):
    report, printed = rehearsal
    assert report["rehearsal"] and report["device"] is None
    assert printed.startswith("REHEARSAL on a CPU")


def test_every_step_has_a_result_or_says_why_not(rehearsal):
    report, printed = rehearsal
    assert list(report["parts"]) == ["operators", "eval", "onnxruntime", "tensorrt"]
    for part in report["parts"].values():
        assert part["failed"] is None
        for name, step in part["steps"].items():
            assert step["state"] in ("done", "absent"), (name, step)
            assert (step["reason"] if step["state"] == "absent" else step["result"]["said"]) in printed


def test_operators_agree_in_every_dtype(rehearsal):
    report, _ = rehearsal
    operators = results(report, "operators")
    for dtype in ("fp32", "fp16", "bf16"):
        found = operators[dtype]
        assert found["compared"] > 100 and found["differs"] == 0
        assert {"topk", "merge: index", "mask: mass", "score"} <= found["worst"].keys()


def test_answers_are_the_host_s_and_a_picture_of_real_size_is_answered(rehearsal):
    report, _ = rehearsal
    found = results(report, "eval")
    assert found["demo, fp32"]["differ"] == 0 and found["demo, fp16"]["answers"] == 7
    picture = found["like llava-v1.6-vicuna-7b, scaled"]
    assert picture["visual_tokens"] == 2928 and picture["asked_bytes"] > picture["weight_bytes"]
    assert all(seconds > 0 for seconds in picture["median_seconds"].values())
    assert picture["median_seconds"].keys() == {"vision", "dense", "fastv", "asap"}


def test_without_a_device_there_is_one_line(tmp_path):
    done = gpu_check("--json", tmp_path / "report.json")
    assert done.returncode == 2
    assert (
        done.stderr.strip() == "expected a CUDA device for PyTorch, found none; --rehearse runs a rehearsal"
    )
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--parts", "operators,everything"),
            "expected --parts among operators, eval, onnxruntime, tensorrt, bench, found everything",
        ),
        (("--rounds", "0"), "expected --rounds of at least 1, found 0"),
        (("--layers", "2"), "expected --layers of at least 3"),
        (("--json", "no/report.json"), "expected a file's name in a folder for --json, found no/report.json"),
        (("--bundle", "no.bundle"), "expected a bundle at no.bundle, found none"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(monkeypatch, capsys, options, said):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *options])
    with pytest.raises(SystemExit) as ended:
        parsed()
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_a_step_that_fails_leaves_its_reason_and_the_others(tmp_path):
    file = tmp_path / "steps.json"
    steps = Steps(file)

    def fails() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")

    def misses() -> None:
        raise Absent("no TensorRT here")

    def ends_the_process() -> None:
        states = {name: step["state"] for name, step in json.loads(file.read_text()).items()}
        assert states == {"first": "failed", "second": "absent", "third": "done", "fourth": "running"}

    assert steps.run("first", fails) is None
    assert steps.run("second", misses) is None
    assert steps.run("third", lambda: {"answer": 42}) == {"answer": 42}
    steps.run("fourth", ends_the_process)
    found = json.loads(file.read_text())
    assert found["first"]["reason"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert found["second"] == {"state": "absent", "reason": "no TensorRT here"}
    assert found["fourth"]["state"] == "done"
