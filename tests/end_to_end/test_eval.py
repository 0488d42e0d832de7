"""``asap-export eval`` as a user starts it. One process does, because each takes seconds to import PyTorch."""

import json
import sys
from pathlib import Path

import pytest
from installed_command import IMAGES, run
from short_checkpoint import write_short_checkpoint

from asap_export.cli.app import exit_status
from asap_export.evaluation import EvaluationRequest
from asap_export.evaluation.journal import Journal

LIST = ("--methods", "dense,asap,fastv", "--budgets", "80%", "--max-new-tokens", "3")
ASKED = ("eval", "short", "--dataset", "data.jsonl", *LIST)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of three layers, and questions about example images; also where this process is."""
    write_short_checkpoint(tmp_path / "short")
    lines = [
        {"image": str(IMAGES / image), "question": "What is it?", "answer": "a cat", "kind": "what"}
        for image in ("mat.png", "sign.png")
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class StoppedJournal(Journal):
    """Ctrl-C when the first picture's records are there."""

    def append(self, records) -> None:
        super().append(records)
        raise KeyboardInterrupt


def test_an_interrupted_evaluation_says_how_to_go_on_and_goes_on(folder: Path, monkeypatch, capsys) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules[EvaluationRequest.__module__], "Journal", StoppedJournal)
        assert exit_status(ASKED) == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-2:] == [
        "what was answered is kept: the same command goes on from there",
        "interrupted",
    ]
    records = folder / "short.eval" / "records.jsonl"
    [first] = records.read_text().splitlines()

    done = run(*ASKED, folder=folder)
    assert done.stdout.startswith("short on data.jsonl: 2 questions, 2 images\n")
    assert "Question by question" in done.stdout and done.stdout.endswith("records and results: short.eval\n")
    assert "Answer: " in done.stderr
    assert len(records.read_text().splitlines()) == 2 and records.read_text().startswith(first)
    facts = json.loads((folder / "short.eval" / "results.json").read_text())
    assert [run["method"] for run in facts["runs"]] == ["dense", "asap", "fastv"]

    assert exit_status((*ASKED, "--json")) == 0
    again = capsys.readouterr()
    assert json.loads(again.out) == facts and "Answer: " not in again.err


def test_wrong_input_gets_one_line(folder: Path, capsys) -> None:
    (folder / "missing.jsonl").write_text('{"image": "nowhere.png", "question": "What?", "answer": "cat"}\n')
    assert exit_status(("eval", "short", "--dataset", "missing.jsonl")) == 2
    wanted = (
        "expected the image of line 1 of missing.jsonl at nowhere.png, found no such file; check the path"
    )
    assert capsys.readouterr() == ("", f"error: {wanted}\n")
    assert not (folder / "short.eval").exists()
