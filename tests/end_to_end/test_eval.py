"""``asap-export eval`` as a user starts it."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from installed_command import COMMAND, ENVIRONMENT, IMAGES, refused, run
from short_checkpoint import write_short_checkpoint

LIST = ("--methods", "dense,asap,fastv", "--budgets", "80%", "--max-new-tokens", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint of three layers, and questions about example images."""
    folder = tmp_path_factory.mktemp("eval")
    write_short_checkpoint(folder / "short")
    lines = [
        {"image": str(IMAGES / image), "question": "What is it?", "answer": "a cat", "kind": "what"}
        for image in ("mat.png", "sign.png")
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_the_table_is_on_stdout_and_the_results_are_in_the_folder(folder: Path) -> None:
    done = run("eval", "short", "--dataset", "data.jsonl", *LIST, folder=folder)
    assert done.stdout.startswith("short on data.jsonl: 2 questions, 2 images\n")
    assert "Question by question" in done.stdout and done.stdout.endswith("records and results: short.eval\n")
    assert "Answer: " in done.stderr
    facts = json.loads((folder / "short.eval" / "results.json").read_text())
    assert [run["method"] for run in facts["runs"]] == ["dense", "asap", "fastv"]
    again = run("eval", "short", "--dataset", "data.jsonl", *LIST, "--json", folder=folder)
    assert json.loads(again.stdout) == facts and "Answer: " not in again.stderr


def test_wrong_input_gets_one_line(folder: Path) -> None:
    (folder / "missing.jsonl").write_text('{"image": "nowhere.png", "question": "What?", "answer": "cat"}\n')
    said = refused("eval", "short", "--dataset", "missing.jsonl", folder=folder)
    wanted = (
        "expected the image of line 1 of missing.jsonl at nowhere.png, found no such file; check the path"
    )
    assert said == f"error: {wanted}"


def test_ctrl_c_keeps_what_was_answered_and_says_how_to_go_on(folder: Path) -> None:
    process = subprocess.Popen(
        [COMMAND, "eval", "short", "--limit", "100000", *LIST, "--output", "stopped"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    records = folder / "stopped" / "records.jsonl"
    for _ in range(3000):
        if records.is_file() and records.stat().st_size:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert errors.splitlines()[-2:] == [
        "what was answered is kept: the same command goes on from there",
        "interrupted",
    ]
    assert json.loads(records.read_text().splitlines()[0])["id"] == "test-0-0"
