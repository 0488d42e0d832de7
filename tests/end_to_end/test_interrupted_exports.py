import signal
import subprocess
import time
from pathlib import Path

import pytest
from command import refused, run
from installed_command import COMMAND, ENVIRONMENT, listing
from short_checkpoint import write_short_checkpoint


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, "--model", "short", "--output", "out", *arguments],
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_short_checkpoint(tmp_path / "short")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "until"),
    [((), ".out.partial-*/vision_encoder.onnx"), (("--engine", "trt"), ".out.partial-*/decoder.onnx")],
    ids=["while tracing", "while building"],
)
def test_ctrl_c_leaves_nothing(folder: Path, arguments: tuple[str, ...], until: str) -> None:
    before = listing(folder)
    process = started(folder, *arguments)
    wait_for(folder, until, process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert errors.splitlines()[-1] == "interrupted" and "Traceback" not in errors
    assert listing(folder) == before


def test_a_killed_export_leaves_no_bundle_and_the_next_run_works(folder: Path) -> None:
    process = started(folder)
    partial = wait_for(folder, ".out.partial-*/vision_encoder.onnx", process).parent
    process.kill()
    process.communicate()
    assert not (folder / "out").exists()
    assert "found an interrupted export" in refused("inspect", partial)
    said = run(
        "--model", "short", "--output", "out", "--dense", "--weights", "link", "-v", folder=folder
    ).stdout
    assert "; no cut" in said and "1 linked (" in said
    assert {path.name for path in folder.iterdir()} == {"short", "out"}
    run("inspect", "out", folder=folder)
