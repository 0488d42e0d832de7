import io
import re
import time

import pytest
from rich.console import Console

from asap_export.cli import progress as shown_by
from asap_export.cli.progress import shown_progress
from asap_export.progress import Progress


def shown(terminal: bool, *stands: Progress) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with shown_progress(console) as progress:
        for stand in stands:
            progress(stand)
        time.sleep(0.3 * terminal)  # bars are drawn ten times a second
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_away_from_a_terminal_each_stage_is_a_line_when_it_is_over() -> None:
    said = shown(False, Progress("Trace decoder"), Progress("Build [x]", 0.5), Progress("Build [x]", 1.0))
    assert re.fullmatch(r"Trace decoder: \d+\.\d s\nBuild \[x\]: \d+\.\d s\n", said)


def test_a_terminal_shows_stage_percentage_time_and_the_step() -> None:
    said = shown(True, Progress("Trace decoder"), Progress("Build", 0.25, "[tactics]"))
    assert "Trace decoder" in said and "0:00:00" in said
    assert "25%" in said and "[tactics]" in said
    assert said.count("100%") >= 2, "both stages are over in the end"


def test_a_bar_that_stands_still_has_a_spinner_that_moves() -> None:
    said = shown(True, Progress("Trace decoder", 0.0))
    frames = {frame for frame in "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if frame in said}
    assert len(frames) > 1


def test_quiet_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown_by, "is_quiet", lambda: True)
    assert shown(False, Progress("Trace decoder"), Progress("Build", 0.5)) == ""


def test_verbose_adds_details_to_a_log_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stands = [Progress("Build", number / 100, f"step {number}") for number in range(100)]
    assert shown(False, *stands).count("\n") == 1
    monkeypatch.setattr(shown_by, "is_verbose", lambda: True)
    assert shown(False, *stands).count("\n") < 10
    monkeypatch.setattr(shown_by, "_BETWEEN_DETAILS", 0.0)
    assert "Build: step 0\nBuild: step 1\n" in shown(False, *stands)


def test_nothing_to_do_says_nothing() -> None:
    assert shown(False) == ""


def test_a_stage_that_failed_is_no_finished_line() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    try:
        with shown_progress(console) as progress:
            progress(Progress("Trace decoder"))
            raise RuntimeError
    except RuntimeError:
        assert isinstance(console.file, io.StringIO)
        assert console.file.getvalue() == ""
