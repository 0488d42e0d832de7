"""A scene by its name: split and number."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from PIL import Image

from asap_export.scenes.drawing import draw
from asap_export.scenes.questions import KINDS, SceneQuestion, ask
from asap_export.scenes.things import Size, Thing, layout

__all__ = ["SPLITS", "Scene", "Split", "scene"]

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

SMALLEST, LARGEST = 84, 224  # pixels of a side


@dataclass(frozen=True)
class Scene:
    """An RGB image, what is on it, and questions about it."""

    image: Image.Image
    things: tuple[Thing, ...]
    questions: tuple[SceneQuestion, ...]


def scene(
    split: Split, index: int, questions: int = 8, size: Size | None = None, kinds: Sequence[str] = KINDS
) -> Scene:
    """The ``index``-th scene of a split: the same one on every call. ``size`` replaces its own canvas size."""
    random = Random(f"{split} {index}")  # seeded by the text itself, on any machine
    own = random.randint(SMALLEST, LARGEST), random.randint(SMALLEST, LARGEST)
    size = size or own
    things = layout(size, random)
    image = draw(size, things, random)
    return Scene(image, things, ask(size, things, questions, random, kinds))
