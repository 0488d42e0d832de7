"""A tiny checkpoint, and a handful of questions about three small pictures."""

import json
from pathlib import Path

import pytest
from PIL import Image
from small_checkpoints import write_checkpoint

ASKED = [
    ("red.png", "What color?", ["red"], "color"),
    ("red.png", "How large is the picture?", ["small", "large"], "size"),
    ("wide/blue.png", "What color is it?", ["blue"], "color"),
    ("green.jpg", "What color?", ["green"], "color"),
    ("red.png", "And is it round?", ["no"], ""),
]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A LLaVA-NeXT of three layers with random weights."""
    return write_checkpoint(tmp_path_factory.mktemp("evaluation") / "checkpoint")


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A folder with one JSON-lines file and its images."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "wide").mkdir()
    for name, color, size in (
        ("red.png", (200, 10, 10), (40, 40)),
        ("wide/blue.png", (0, 0, 255), (90, 30)),
        ("green.jpg", (0, 128, 0), (30, 60)),
    ):
        Image.effect_noise(size, 60).convert("RGB").point(lambda v, c=color: v).save(folder / name)
    lines = [
        json.dumps({"image": image, "question": text, "answers": answers, "kind": kind})
        for image, text, answers, kind in ASKED
    ]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n\n")
    return folder
