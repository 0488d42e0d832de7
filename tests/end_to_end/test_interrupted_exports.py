import signal
import subprocess
import time
from contextlib import suppress
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
    [
        pytest.param((), ".out.partial-*/vision_encoder.onnx", id="while tracing"),
        pytest.param(
            ("--engine", "trt"), ".out.partial-*/decoder.onnx", id="while building", marks=pytest.mark.long
        ),
    ],
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_clean_up_too(folder: Path, number: signal.Signals) -> None:
    before = listing(folder)
    process = started(folder)
    wait_for(folder, ".out.partial-*", process)
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + number, "")
    assert errors.splitlines()[-1] == "interrupted" and "Traceback" not in errors
    assert listing(folder) == before


def interrupt(process: subprocess.Popen[str], seconds: float) -> tuple[int, str, str]:
    """Ctrl-C so long after the command began to listen: exit status, output, what was said last."""
    while not catches(process.pid, signal.SIGTERM):  # nobody but the command itself catches this one
        time.sleep(0.001)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    return process.returncode, out, (errors.splitlines() or [""])[-1]


def catches(process: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{process}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("seconds", [0.0, 0.2, 1.0])
def test_ctrl_c_while_the_command_starts(folder: Path, seconds: float) -> None:
    before = listing(folder)
    assert interrupt(started(folder), seconds) == (130, "", "interrupted")
    assert listing(folder) == before


@pytest.fixture(scope="module")
def duration(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds that an export of the short checkpoint takes."""
    folder = tmp_path_factory.mktemp("whole")
    write_short_checkpoint(folder / "short")
    begin = time.monotonic()
    run("--model", "short", "--output", "out", folder=folder)
    return time.monotonic() - begin


@pytest.mark.moments
@pytest.mark.parametrize("moment", range(50))
def test_ctrl_c_at_any_moment(folder: Path, duration: float, moment: int) -> None:
    """Either it came too late, or it ends the export, and leaves nothing."""
    before = listing(folder)
    status, out, last = interrupt(started(folder), duration * moment / 50)
    if status == 0:
        assert out and (folder / "out" / "manifest.json").exists()
        run("inspect", "out", folder=folder)
    else:
        assert (status, out, last) == (130, "", "interrupted")
        assert listing(folder) == before


def test_the_builder_of_an_engine_dies_with_the_export(folder: Path) -> None:
    process = started(folder, "--engine", "trt")
    wait_for(folder, ".out.partial-*/decoder.onnx", process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end = time.monotonic() + 60
    while not (builder := children.read_text().split()):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    while Path(f"/proc/{builder[0]}/cmdline").exists():
        assert time.monotonic() < end + 5, "the builder goes on"
        time.sleep(0.02)


@pytest.mark.long
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
