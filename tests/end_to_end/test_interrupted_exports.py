import signal
import subprocess
import time
from pathlib import Path

import pytest
from installed_command import COMMAND, ENVIRONMENT, listing, refused, run


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, "--output", "out", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]) -> Path:
    """The first path that matches, as soon as there is one."""
    for _ in range(6000):
        if found := next(folder.glob(pattern), None):
            return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise TimeoutError(pattern)


@pytest.mark.parametrize(
    ("arguments", "until"),
    [((), ".out.partial-*/vision_encoder.onnx"), (("--engine", "trt"), ".out.partial-*/decoder.onnx")],
    ids=["while tracing", "while building"],
)
def test_ctrl_c_leaves_nothing(tmp_path: Path, arguments: tuple[str, ...], until: str) -> None:
    process = started(tmp_path, *arguments)
    wait_for(tmp_path, until, process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert errors.splitlines()[-1] == "interrupted" and "Traceback" not in errors
    assert listing(tmp_path) == []


def test_a_killed_export_leaves_no_bundle_and_the_next_run_works(tmp_path: Path) -> None:
    process = started(tmp_path)
    partial = wait_for(tmp_path, ".out.partial-*/vision_encoder.onnx", process).parent
    process.kill()
    process.communicate()
    assert not (tmp_path / "out").exists()
    assert "found an interrupted export" in refused("inspect", partial)
    run("--output", "out", folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    run("inspect", "out", folder=tmp_path)
