import io
import re
import time

from rich.console import Console

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
