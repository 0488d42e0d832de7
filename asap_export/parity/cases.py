"""What is compared: prompts with one image, several, none, in a batch, and in a later turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from transformers import ProcessorMixin

from asap_export.bundle import Limits
from asap_export.model.anyres import TileGeometry, packing
from asap_export.model.reference import PromptBatch
from asap_export.runtime.images import read_image

__all__ = ["Case", "CaseQuestion", "built_in_cases", "few_cases", "prompt_of"]


@dataclass(frozen=True)
class CaseQuestion:
    """One sequence: its images and what is asked about them."""

    images: tuple[Path, ...]
    text: str

    def marked_text(self, mark: str) -> str:
        """The text with the checkpoint's own ``mark`` for each image before it."""
        return " ".join([*[mark] * len(self.images), self.text])


@dataclass(frozen=True)
class Case:
    """Turns of a conversation, each a batch of questions; ``keep`` replaces the bundle's budget."""

    name: str
    turns: tuple[tuple[CaseQuestion, ...], ...]
    keep: int | None = None


def built_in_cases(
    geometry: TileGeometry, images: Sequence[Path] = (), limits: Limits | None = None, prunes: bool = True
) -> list[Case]:
    """Cases within the limits of a bundle's engines, where it is those that run; ``prunes``: some drop as little
    as can be dropped, where a length that is off by one shows.

    ``images`` (the user's own) replace the pictures of the package.
    """
    pictures = list(images) or sorted(_pictures(), key=lambda path: path.name)
    what, where = "What is in the picture?", "Where is it?"
    cases = [Case(f"image {path.name}", ((CaseQuestion((path,), what),),)) for path in pictures]
    cases.append(Case("no image", ((CaseQuestion((), what),),)))
    cases.append(Case("every token kept", ((CaseQuestion((pictures[0],), where),),), keep=1 << 20))
    sizes = sorted((_visual_tokens(path, geometry), path) for path in pictures)
    (fewest, smallest), (_, larger) = sizes[0], sizes[1 % len(sizes)]
    if prunes and fewest > 1:
        cases.append(Case("all but one token kept", ((CaseQuestion((smallest,), what),),), keep=fewest - 1))
    if prunes and (limits is None or limits.max_batch > 1):
        rows = CaseQuestion((smallest,), what), CaseQuestion((larger,), what)
        cases.append(Case("a batch, one row kept whole", (rows,), keep=fewest))
    second = pictures[1 % len(pictures)]
    turns = (CaseQuestion((pictures[0],), what),), (CaseQuestion((second,), where),)
    cases.append(Case("a later turn with an image", turns))
    if limits is None or limits.max_images > 1:
        cases.append(Case("two images", ((CaseQuestion((pictures[0], second), "What differs?"),),)))
    if limits is None or limits.max_batch > 2:
        several = (
            CaseQuestion((pictures[0],), what),
            CaseQuestion((), where),
            CaseQuestion((second,), "And here, what is it?"),
        )
        cases.append(Case("a batch", (several,)))
    return cases


def few_cases(geometry: TileGeometry, images: Sequence[Path] = ()) -> list[Case]:
    """Two cases that go through every branch of the graphs, with as few visual tokens as pictures allow: at the
    width of a 7B model a prompt of three thousand takes a CPU a minute.

    ``images`` (the user's own) get a case each.
    """
    what, where = "What is in the picture?", "Where is it?"
    smallest = sorted(images or _pictures(), key=lambda path: _visual_tokens(path, geometry))
    first, second = smallest[0], smallest[1 % len(smallest)]
    cases = [Case(f"image {path.name}", ((CaseQuestion((path,), what),),)) for path in images]
    cases.append(
        Case(
            "a later turn with an image", ((CaseQuestion((second,), what),), (CaseQuestion((first,), where),))
        )
    )
    cases.append(Case("a batch", ((CaseQuestion((first,), what), CaseQuestion((), where)),)))
    return cases


def _visual_tokens(path: Path, geometry: TileGeometry) -> int:
    image = read_image(path)
    return len(packing([(image.height, image.width)], geometry).gather_index)


def _pictures() -> list[Path]:
    return [Path(str(entry)) for entry in (files("asap_export") / "example_images").iterdir()]


def prompt_of(
    questions: Sequence[CaseQuestion], processor: ProcessorMixin, geometry: TileGeometry
) -> PromptBatch:
    """What the reference is given for a turn: transformers' own preprocessing and our packing."""
    texts = [question.marked_text(processor.image_token) for question in questions]
    images = [read_image(path) for question in questions for path in question.images]
    processor.tokenizer.padding_side = "left"  # the graphs give the logits of the last position
    inputs = processor(text=texts, images=images or None, return_tensors="pt", padding=True)
    if not images:
        return PromptBatch(inputs["input_ids"], inputs["attention_mask"])
    packed = packing([(image.height, image.width) for image in images], geometry)
    # padded to the image with the most tiles; LLaVA-1.5's single tile comes without that dimension
    padded = (pixels.reshape(-1, *pixels.shape[-3:]) for pixels in inputs["pixel_values"])
    tiles = [pixels[:count] for pixels, count in zip(padded, packed.tiles, strict=True)]
    gather_index = torch.from_numpy(packed.gather_index)
    return PromptBatch(inputs["input_ids"], inputs["attention_mask"], torch.cat(tiles), gather_index)
