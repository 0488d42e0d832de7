"""The built-in demo checkpoint, which commands mean where they are given no other."""

import json
import re
from pathlib import Path

import pytest
from command import run
from installed_command import IMAGES

from asap_export.pruning.config import Budget
from asap_export.report.flops import flops_facts


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What number is in the red box?", "2"),
        ("What color is the heart?", "orange"),
        ("Is the blue star above or below the blue circle?", "below"),
    ],
)
def test_an_export_without_a_model_answers_rightly(demo_bundle: Path, question: str, answer: str) -> None:
    assert json.loads((demo_bundle / "manifest.json").read_text())["source"]["id"] == "demo"
    done = run("run", demo_bundle, "--image", IMAGES / "things.png", "--prompt", question)
    assert done.stdout == f"{answer}\n"
    assert re.fullmatch(r"\d+ of 922 visual tokens, first token \d.*, .* tokens/s, cpu\n", done.stderr)


def test_its_bundle_finds_the_checkpoint_again(demo_bundle: Path) -> None:
    done = run("verify", demo_bundle, "--layers", "3", "--image", IMAGES / "mat.png", "--json")
    assert json.loads(done.stdout)["verdict"] == "PASS"


def test_flops_without_a_source_is_about_the_demo() -> None:
    said = run("flops", "--budget", "300", "--text-tokens", "10").stdout
    average = flops_facts(None, budget=Budget(layer_average=300))["layer_average"]
    assert said.startswith("demo, ") and f"{average:.1f} per layer on average" in said
