"""A checkpoint's own Python files are never run, whoever asks for it and whatever is on standard input."""

import json
from pathlib import Path

import pytest
from command import refused
from small_checkpoints import write_checkpoint

from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.checkpoint.loading import check_processor, load_model

CODE = "from pathlib import Path\n\nPath({!r}).touch()\n"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small checkpoint with a Python file that leaves a trace where it is run."""
    folder = write_checkpoint(tmp_path / "small")
    (folder / "own.py").write_text(CODE.format(str(tmp_path / "ran")))
    return folder


def name_code(file: Path, **changes: object) -> None:
    """Let the file ask for the code, and ``changes`` besides."""
    settings = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(settings | changes))


@pytest.mark.parametrize(
    ("file", "part", "changes"),
    [
        ("processor_config.json", "AutoProcessor", {"processor_class": "OwnProcessor"}),
        ("processor_config.json", "AutoProcessor", {}),
        ("preprocessor_config.json", "AutoImageProcessor", {"image_processor_type": "OwnImageProcessor"}),
        ("tokenizer_config.json", "AutoTokenizer", {"tokenizer_class": "OwnTokenizer"}),
        ("video_preprocessor_config.json", "AutoVideoProcessor", {}),
        ("config.json", "AutoProcessor", {}),
        ("config.json", "AutoTokenizer", {}),
    ],
)
def test_an_export_refuses_and_says_which_file_asks(
    checkpoint: Path, tmp_path: Path, file: str, part: str, changes: dict[str, object]
) -> None:
    name_code(checkpoint / file, auto_map={part: "own.Own"}, **changes)
    said = refused("--model", checkpoint, "--output", tmp_path / "out", folder=tmp_path, text="y\ny\n")
    assert f"{checkpoint / file} asks for code of the checkpoint for its {part}, which is never run" in said
    assert not (tmp_path / "ran").exists()


def test_a_part_within_the_processors_file(checkpoint: Path, tmp_path: Path) -> None:
    inner = {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"}}
    name_code(checkpoint / "processor_config.json", image_processor=inner)
    assert "for its AutoImageProcessor" in refused("--model", checkpoint, "--output", tmp_path / "out")


def test_code_for_the_model_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    """Its class is transformers' own, whatever else config.json names."""
    name_code(
        checkpoint / "config.json",
        auto_map={"AutoConfig": "own.Own", "AutoModelForImageTextToText": "own.Own"},
    )
    opened = open_checkpoint(checkpoint)
    check_processor(checkpoint, opened.spec)
    load_model(opened, "fp32")
    assert not (tmp_path / "ran").exists()
