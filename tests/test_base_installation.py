"""What works where only the base is installed, which runs a bundle, and what the rest says there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_cases import write_bundle
from installed_command import ENVIRONMENT, IMAGES, listing
from test_rooms import MODULES

from asap_export.checkpoint.sources import DEMO
from asap_export.cli.app import EXPORT_PACKAGES

BLOCK = f"import sys; sys.modules.update(dict.fromkeys({sorted(EXPORT_PACKAGES)}))"  # None: there is no such
COMMAND = f"{BLOCK}; from asap_export.cli.start import main; main()"
ROOMS = ("bundle", "runtime", "report", "scenes", "cli", "pruning.config", "pruning.flops", "model.anyres")
PROGRAM = """
import asap_export
from asap_export.runtime.request import Request

model = asap_export.load(sys.argv[1], "cpu")
print(model.generate([sys.argv[2]], "What is on the mat?", max_new_tokens=3).token_ids)
requests = [Request((sys.argv[2],), text, 3) for text in ("What is on the mat?", "Why?")]
print(model.generate_batch(requests)[0].token_ids)
chat = model.chat()
print(chat.ask(sys.argv[2], "What is on the mat?", max_new_tokens=3).token_ids)
chat.ask((), "Why?", max_new_tokens=3)
"""


def python(
    program: str, *arguments: str | Path, folder: Path | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        input=text,
        env=ENVIRONMENT | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )


def said(*arguments: str | Path, text: str = "") -> str:
    done = python(COMMAND, *arguments, text=text)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_modules_that_run_a_bundle_import_nothing_else() -> None:
    names = [name for name in MODULES if any(f"{name}.".startswith(f"{room}.") for room in ROOMS)]
    assert "runtime.tensorrt_session" in names and "cli.run" in names
    done = python("; ".join([BLOCK, *(f"import asap_export.{name}" for name in names)]))
    assert done.returncode == 0, done.stderr


def test_python_answers_alone_in_a_batch_and_in_a_conversation(pruned_bundle: Path) -> None:
    done = python(BLOCK + PROGRAM, pruned_bundle, IMAGES / "mat.png")
    assert done.returncode == 0, done.stderr
    alone, in_a_batch, first_turn = done.stdout.splitlines()
    assert alone == in_a_batch == first_turn


def test_run_answers_and_chats(pruned_bundle: Path) -> None:
    options = ("run", pruned_bundle, "--max-new-tokens", "3", "--json")
    answer = json.loads(said(*options, "--image", IMAGES / "mat.png", "--prompt", "What is on the mat?"))
    assert 0 < answer["kept_visual_tokens"] < answer["visual_tokens"]
    turns = said(*options, "--chat", text=f"/image {IMAGES / 'mat.png'}\nWhat is on the mat?\nWhy?\n")
    assert turns.count('"token_ids"') == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("inspect", "BUNDLE"), "visual tokens"),
        (("flops", "BUNDLE"), "40 kept after 2 layers"),
        (("flops", DEMO / "config.json"), "TFLOPs"),
        (("flops", "llava-v1.6-vicuna-7b"), "TFLOPs"),
        (("flops",), "demo"),
        (("flops", "--list"), "llava-hf/llava-v1.6-mistral-7b-hf"),
        (("env",), "onnxruntime"),
        (("--help",), "--engine"),
        (("verify", "--help"), "PyTorch"),
        (("bench", "--help"), "--like"),
    ],
    ids=lambda case: " ".join(map(str, case)) if isinstance(case, tuple) else "",
)
def test_other_commands_work(arguments: tuple[str | Path, ...], expected: str, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle").path
    assert expected in said(*(bundle if word == "BUNDLE" else word for word in arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--output", "new"),
        ("--engine", "trt", "--output", "new"),
        ("verify", "bundle"),
        ("eval", "--output", "new"),
        ("eval", "bundle", "--output", "new"),
        ("explain", "bundle", "--prompt", "What is it?", "--image", "mat.png"),
        ("bench", "bundle"),
        ("flops", "llava-hf/some-other-checkpoint"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_commands_that_need_more_say_what_to_install(
    arguments: tuple[str | Path, ...], tmp_path: Path
) -> None:
    write_bundle(tmp_path / "bundle")
    before = listing(tmp_path)
    done = python(COMMAND, *arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    package = line.removeprefix("error: expected the Python package ").partition(" ")[0]
    assert package in EXPORT_PACKAGES
    assert line.endswith("for this command, found none; pip install 'asap-export[export]'")
    assert listing(tmp_path) == before
