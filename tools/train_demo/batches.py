"""Scenes as tensors: the tiles a processor would make, what every patch shows, and many questions per image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch
from architecture import MEAN, PATCH, PINPOINTS, SPECIAL, STD, TILE
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset

from asap_export.model.anyres import TileGeometry, best_resolution, packing, visual_token_count
from asap_export.scenes import KINDS, Scene, SceneQuestion, scene
from asap_export.scenes.drawing import coverage, draw
from asap_export.scenes.things import COLORS, DIGITS, SHAPES, WORDS, Size, layout

GEOMETRY = TileGeometry(TILE, PATCH, tuple((height, width) for height, width in PINPOINTS))
COLOR_NAMES = tuple(COLORS)
FORMS = (*SHAPES, "box", "sign")
TEXTS = (*DIGITS, *WORDS)
SHOWN, HIDDEN = (
    0.25,
    0.06,
)  # parts of a patch: from the first on it shows the thing, up to the second it does not
IGNORED = -100
PLACES = ("side", "place")  # what a glance is asked about: only the base view says where things are


@dataclass
class Stage:
    """``steps`` batches of ``images`` scenes with canvases from ``smallest`` to ``largest`` pixels a side."""

    name: str
    steps: int
    images: int
    smallest: int
    largest: int
    questions: int = 16
    rate: float = 1e-3
    last_rate: float = 1e-3
    seeing_rate: float = 1.0  # of the tower's and projector's learning rate
    glances: float = 0.0  # part of the steps that show the base view only


@dataclass
class Batch:
    """One step's scenes, all of one canvas size.

    tiles: [B·t, 3, TILE, TILE] uint8; gather_index: [B·N]; labels: [B·t, patches, 3] (color, form, text; -1 for
    none, -100 where it is not clear); text_ids: [B, L]; block: [B, L], number of the question of a token, -1 for
    padding; offset: [B, L], its place in its own question; targets: [B, L], -100 where nothing is asked.
    """

    tiles: Tensor
    gather_index: Tensor
    labels: Tensor
    text_ids: Tensor
    block: Tensor
    offset: Tensor
    targets: Tensor


def fitted(image: Image.Image, resample: Image.Resampling) -> tuple[Image.Image, Image.Image]:
    """The image as base tile, and fitted into its grid with black margins, as LLaVA-NeXT's processor does it."""
    height, width = best_resolution((image.height, image.width), GEOMETRY)
    scale = min(width / image.width, height / image.height)
    if width / image.width < height / image.height:
        inner = width, min(int(np.ceil(image.height * scale)), height)
    else:
        inner = min(int(np.ceil(image.width * scale)), width), height
    grid = Image.new(image.mode, (width, height))
    grid.paste(image.resize(inner, resample), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return image.resize((TILE, TILE), resample), grid


def tiled(image: Image.Image, resample: Image.Resampling = Image.Resampling.BICUBIC) -> np.ndarray:
    """[tiles, TILE, TILE(, 3)] uint8, the base tile first."""
    base, grid = (np.asarray(part) for part in fitted(image, resample))
    rows, columns = grid.shape[0] // TILE, grid.shape[1] // TILE
    cut = grid.reshape(rows, TILE, columns, TILE, *grid.shape[2:]).swapaxes(1, 2)
    return np.concatenate([base[None], cut.reshape(rows * columns, TILE, TILE, *grid.shape[2:])])


def patch_labels(shown: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """What each patch shows. shown: [tiles, TILE, TILE], numbers of things; attributes: [things + 1, 3]."""
    side = TILE // PATCH
    patches = shown.reshape(-1, side, PATCH, side, PATCH).swapaxes(2, 3).reshape(-1, PATCH * PATCH)
    parts = np.stack([(patches == i).mean(axis=1) for i in range(len(attributes))], axis=1)
    parts[:, 0] = 0
    winner, part = parts.argmax(axis=1), parts.max(axis=1)
    labels = attributes[np.where(part >= SHOWN, winner, 0)]
    labels[(part > HIDDEN) & (part < SHOWN)] = IGNORED
    labels = labels.reshape(len(shown), side * side, 3)
    labels[0, :, 2][labels[0, :, 2] >= 0] = IGNORED  # too small to read in the base tile
    return labels


def attributes_of(things) -> np.ndarray:
    rows = [(-1, -1, -1)]
    for thing in things:
        text = TEXTS.index(thing.text) if thing.text else -1
        rows.append((COLOR_NAMES.index(thing.color), FORMS.index(thing.form), text))
    return np.array(rows, dtype=np.int64)


class Writer:
    """Questions as token ids, as the chat template writes them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        probe = self._ids("<image>\n", "What?")
        self.prefix = probe[: probe.index(SPECIAL["<image>"]) + 2]  # up to the line break behind the image
        self._known: dict[tuple[str, str], tuple[list[int], int]] = {}

    def _ids(self, image: str, text: str) -> list[int]:
        return self.tokenizer.encode(f"USER: {image}{text} ASSISTANT:").ids

    def written(self, question: SceneQuestion) -> tuple[list[int], int]:
        """Ids behind the common prefix, the answer and its end included, and how many of them the answer takes."""
        key = question.text, question.answer
        if key not in self._known:
            ids = self._ids("<image>\n", question.text)
            assert ids[: len(self.prefix)] == self.prefix
            answer = [
                *self.tokenizer.encode(f" {question.answer}", add_special_tokens=False).ids,
                SPECIAL["</s>"],
            ]
            self._known[key] = [*ids[len(self.prefix) :], *answer], len(answer)
        return self._known[key]


def reading(first: int, size: Size) -> Scene:
    """A scene crowded with digits and words, to learn to read on."""
    random = Random(f"reading {first}")
    cast = []
    for _ in range(14):
        form = random.choice(("box", "box", "sign", "sign", random.choice(SHAPES)))
        text = random.choice({"box": DIGITS, "sign": WORDS}.get(form, ("",)))
        cast.append((form, random.choice(COLOR_NAMES), text))
    things = layout(size, random, cast)
    return Scene(draw(size, things, random), things, ())


def glanced(whole: Batch) -> Batch:
    """The same scenes and questions, of whose visual tokens only the base view is left."""
    images = whole.text_ids.shape[0]
    base, labels = (part.view(images, -1, *part.shape[1:])[:, 0] for part in (whole.tiles, whole.labels))
    index = torch.arange(images * GEOMETRY.features)
    return replace(whole, tiles=base.contiguous(), labels=labels.contiguous(), gather_index=index)


def batch(
    first: int,
    size: Size,
    stage: Stage,
    writer: Writer,
    split: str = "train",
    kinds: Sequence[str] = KINDS,
) -> Batch:
    scenes = [
        reading(first + i, size)
        if not stage.questions and i % 2
        else scene(split, first + i, stage.questions, size, kinds)
        for i in range(stage.images)
    ]
    tiles = np.concatenate([tiled(s.image) for s in scenes]).transpose(0, 3, 1, 2)
    labels = np.concatenate(
        [
            patch_labels(tiled(coverage(size, s.things), Image.Resampling.NEAREST), attributes_of(s.things))
            for s in scenes
        ]
    )
    written = [[writer.written(q) for q in s.questions] for s in scenes]
    length = max(1, *(sum(len(ids) for ids, _ in row) for row in written))
    text = np.full((len(scenes), length), SPECIAL["<pad>"])
    block, offset = np.full_like(text, -1), np.zeros_like(text)
    targets = np.full_like(text, IGNORED)
    for b, row in enumerate(written):
        at = 0
        for number, (ids, answer) in enumerate(row):
            end = at + len(ids)
            text[b, at:end], block[b, at:end], offset[b, at:end] = ids, number, np.arange(len(ids))
            targets[b, end - answer - 1 : end - 1] = ids[-answer:]
            at = end
    sizes = [(size[1], size[0])] * len(scenes)
    index = packing(sizes, GEOMETRY).gather_index
    arrays = (np.ascontiguousarray(tiles), index, labels, text, block, offset, targets)
    return Batch(*(torch.from_numpy(array) for array in arrays))


class Batches(IterableDataset):
    """The batches of a stage from ``start`` on: the same ones in every run."""

    def __init__(self, stage: Stage, start: int, seed: int, writer: Writer) -> None:
        self.stage, self.start, self.seed, self.writer = stage, start, seed, writer

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        for step in range(self.start, self.stage.steps):
            random = Random(f"{self.seed} {self.stage.name} {step}")
            size = (
                random.randint(self.stage.smallest, self.stage.largest),
                random.randint(self.stage.smallest, self.stage.largest),
            )
            tokens = visual_token_count((size[1], size[0]), GEOMETRY)
            first = random.randrange(10**12)  # scenes never come twice: numbers are spread far apart
            if random.random() < self.stage.glances:
                yield glanced(batch(first, size, self.stage, self.writer, kinds=PLACES))
            else:
                yield batch(first, size, _sized(self.stage, tokens), self.writer)


def _sized(stage: Stage, tokens: int) -> Stage:
    """Fewer images where each is larger: about as many visual tokens in every step."""
    images = max(2, min(stage.images, round(stage.images * 336 / tokens)))
    return Stage(**{**stage.__dict__, "images": images})


def normalized(tiles: Tensor) -> Tensor:
    mean, std = (torch.tensor(v, device=tiles.device)[:, None, None] for v in (MEAN, STD))
    return (tiles.float() / 255 - mean) / std
