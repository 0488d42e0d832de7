"""`make accuracy` writes its page, its plots and its numbers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_the_page_has_every_table_and_plot(tmp_path: Path) -> None:
    tool = ROOT / "tools" / "measure_accuracy"
    limits = ("--sweep-limit", "2", "--test-limit", "2")
    command = [sys.executable, tool, tmp_path / "out", *limits, "--docs", tmp_path / "docs"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert done.stdout == page + "\n"
    pictures = {picture.name for picture in (tmp_path / "docs" / "pictures").iterdir()}
    assert pictures == {
        "accuracy-budgets.svg",
        "sweep-score.svg",
        "sweep-threshold.svg",
        "sweep-lambda-max.svg",
        "sweep-lambda-max-received.svg",
        "sweep-prune-after.svg",
    }
    assert all(f"](pictures/{picture})" in page for picture in pictures)
    test = json.loads((tmp_path / "docs" / "measurements" / "demo-accuracy-test.json").read_text())
    assert {run["budget"] for run in test["runs"]} == {None, "33.3%", "keep=16.6%", "22.2%", "19%", "17.5%"}
    swept = json.loads((tmp_path / "docs" / "measurements" / "demo-accuracy-sweep.json").read_text())
    assert [facts["questions"] for facts in swept] == [2] * 5
