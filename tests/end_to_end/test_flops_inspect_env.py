import json
import os
import subprocess
from pathlib import Path

import installed_command
import pytest
from bundle_cases import write_bundle
from command import refused, run

ROWS = json.loads((Path(__file__).parents[1] / "pruning/flops_reference.json").read_text())["rows"]


def test_help_names_every_subcommand() -> None:
    said = installed_command.run("--help").stdout
    for name in ("run", "verify", "inspect", "flops", "env", "--engine", "--keep-ratio", "--max-images"):
        assert name in said


@pytest.mark.parametrize("row", [row for row in ROWS if row["keep"]], ids=lambda row: f"{row['flops_T']}")
def test_flops_gives_the_papers_numbers(row: dict[str, float]) -> None:
    model = {"LLaVA-NeXT-7B": "llava-v1.6-vicuna-7b", "LLaVA-1.5-7B": "llava-1.5-7b"}[row["model"]]
    done = run(
        "flops", "--model", model, "--visual-tokens", f"{row['v']}", "--keep", f"{row['keep']}", "--json"
    )
    assert round(json.loads(done.stdout)["pruned_tflops"], 3) == row["flops_T"]
    assert done.stderr == ""


def test_flops_takes_a_checkpoint_a_bare_config_and_a_bundle(random_checkpoint: Path, tmp_path: Path) -> None:
    facts = [
        json.loads(run("flops", source, "--keep", "40", "--visual-tokens", "300", "--json").stdout)
        for source in (random_checkpoint, random_checkpoint / "config.json")
    ]
    assert facts[0]["pruned_tflops"] == facts[1]["pruned_tflops"] < facts[0]["dense_tflops"]
    write_bundle(tmp_path / "out")
    assert "40 kept after 2 layers" in run("flops", tmp_path / "out").stdout


def test_flops_lists_what_it_knows_by_name() -> None:
    said = run("flops", "--list").stdout
    assert "llava-hf/llava-v1.6-mistral-7b-hf" in said and "mistral, 32 × 4096" in said
    facts = json.loads(run("flops", "--list", "--json").stdout)
    assert (
        facts["llava-1.5-13b"]["decoder"]["layers"] == 40
        and facts["llava-1.5-13b"]["limits"]["max_images"] == 4
    )


def test_inspect_prints_tables_or_json(tmp_path: Path) -> None:
    write_bundle(tmp_path / "out")
    said = run("inspect", tmp_path / "out").stdout
    assert "40 of an image's at most 336 visual tokens" in said and "tiles × 3 × 56 × 56" in said
    facts = json.loads(run("inspect", tmp_path / "out", "--json").stdout)
    assert facts["budget"]["keep"] == 40 and len(facts["files"]["decoder.onnx"]["sha256"]) == 64


def test_env_says_what_a_bug_report_needs() -> None:
    said = run("env").stdout
    assert "onnxruntime " in said and "Python" in said
    facts = json.loads(run("env", "--json").stdout)
    assert facts["packages"]["asap-export"] and facts["cores"] >= 1


def test_a_reader_that_leaves_early_sees_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [installed_command.COMMAND, "flops"], stdout=writing, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flops", "--modle", "x"], "no such option: --modle"),
        (["flops", "--text-tokens", "many"], "invalid value for '--text-tokens'"),
        (["flops", "--keep", "5", "--budget", "9"], "give only one of them"),
        (["flops", "a", "--model", "b"], "expected one source"),
        (["flops", "nowhere"], "found no folder nowhere; asap-export flops --list names those known"),
        (["flops", "nowhere", "--list"], "expected --list alone, found nowhere too"),
        (["flops", "--keep", "0"], "expected --keep of at least 1"),
        (["inspect"], "missing argument 'BUNDLE'; see asap-export inspect --help"),
        (["inspect", "nowhere"], "expected a bundle folder at nowhere, found nothing"),
        (["describe"], "no such command 'describe'"),
        (["--engine", "onnx"], "is not one of 'ort', 'trt'; see asap-export --help"),
        (["--keep", "5", "env"], "found --keep before env; put the subcommand first"),
    ],
    ids=lambda case: "-".join(case) if isinstance(case, list) else "",
)
def test_wrong_words_get_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    assert said in refused(*arguments, folder=tmp_path)
