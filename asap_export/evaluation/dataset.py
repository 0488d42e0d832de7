"""Questions about images: the built-in synthetic world, or a JSON-lines file of one's own."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError

from asap_export.errors import UserError
from asap_export.runtime.images import ImageSource

__all__ = ["SYNTHETIC", "Dataset", "Picture", "Question", "Split", "open_dataset"]

Split = Literal["validation", "test"]

SYNTHETIC = "synthetic"
_PER_SCENE = 8  # questions
_SYNTHETIC_QUESTIONS = 2000


@dataclass(frozen=True)
class Question:
    """``answers`` are all that count as right; ``kind`` is the question type, empty where the data has none."""

    id: str
    text: str
    answers: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class Picture:
    """An image and all that is asked about it; ``name`` is its file, or its number in the synthetic world."""

    name: str
    image: ImageSource
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Dataset:
    """Pictures by number, each made when it is asked for.

    ``fingerprint`` says whether two data sets are the same: a file's hash, or the first scene's.
    """

    name: str
    fingerprint: str
    size: int
    picture: Callable[[int], Picture]

    def __iter__(self) -> Iterator[Picture]:
        return (self.picture(number) for number in range(self.size))


def open_dataset(name: str | Path, split: Split | None = None, limit: int | None = None) -> Dataset:
    """``synthetic``, a JSON-lines file, or a folder with one; at most ``limit`` questions of it.

    ``split`` is "test" by default; a folder may hold a file for each. Raises UserError where there is none, a
    line is malformed, an image is missing or none, or nothing is left.
    """
    if limit is not None and limit < 1:
        raise UserError(f"expected --limit of at least 1 question, found {limit}; raise it")
    if str(name) == SYNTHETIC:
        return _synthetic(split or "test", limit or _SYNTHETIC_QUESTIONS)
    return _from_file(_file(Path(name), split), limit)


def _synthetic(split: Split, questions: int) -> Dataset:
    from asap_export.scenes import scene

    def picture(number: int) -> Picture:
        wanted = min(_PER_SCENE, questions - number * _PER_SCENE)
        drawn = scene(split, number)
        asked = tuple(
            Question(f"{split}-{number}-{place}", asked.text, (asked.answer,), asked.kind)
            for place, asked in enumerate(drawn.questions[:wanted])
        )
        return Picture(f"{split}-{number}", drawn.image, asked)

    first = scene(split, 0)
    digest = hashlib.sha256(first.image.convert("RGB").tobytes() + repr(first.questions).encode())
    size = -(-questions // _PER_SCENE)
    return Dataset(f"{SYNTHETIC} {split}", digest.hexdigest(), size, picture)


def _file(path: Path, split: Split | None) -> Path:
    """The JSON-lines file that a path means."""
    if path.is_file():
        if split is not None:
            raise UserError(f"expected no --split with the file {path}, found {split}; leave it out")
        return path
    if not path.is_dir():
        raise UserError(
            f"expected {SYNTHETIC}, a JSON-lines file or a folder with one as --dataset, found nothing at {path}; "
            "check the path"
        )
    if split is not None and (path / f"{split}.jsonl").is_file():
        return path / f"{split}.jsonl"
    found = sorted(path.glob("*.jsonl"))
    if split is None and len(found) == 1:
        return found[0]
    wanted = f"{split}.jsonl" if split else "one .jsonl file"
    listed = ", ".join(file.name for file in found) or "none"
    raise UserError(f"expected {wanted} in {path}, found {listed}; name the file")


def _from_file(file: Path, limit: int | None) -> Dataset:
    try:
        content = file.read_bytes()
        lines = content.decode("utf-8").split("\n")  # other line ends may stand in a text
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"expected JSON lines in {file}, found: {error}; mend the file") from error
    by_image: dict[str, list[Question]] = {}
    count = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip() or count == limit:
            continue
        image, question = _question(line, f"line {number} of {file}", number)
        if image not in by_image:
            _check_image(file.parent / image, f"line {number} of {file}")
        by_image.setdefault(image, []).append(question)
        count += 1
    if not count:
        raise UserError(f"expected questions in {file}, found none; give a file with at least one line")
    pictures = [Picture(name, file.parent / name, tuple(asked)) for name, asked in by_image.items()]
    return Dataset(file.name, hashlib.sha256(content).hexdigest(), len(pictures), pictures.__getitem__)


def _question(line: str, place: str, number: int) -> tuple[str, Question]:
    """The image's path and the question of one line."""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"expected a JSON object in {place}, found {_short(line)}; mend it") from error
    if not isinstance(record, dict):
        raise UserError(f"expected a JSON object in {place}, found {_short(line)}; mend it")
    answers = record.get("answers", record.get("answer"))
    answers = answers if isinstance(answers, list) else [answers]
    for field, value in (("image", record.get("image")), ("question", record.get("question"))):
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"expected a text as {field!r} in {place}, found {_said(value)}; add it")
    if not answers or not all(isinstance(answer, str | int | float) for answer in answers):
        raise UserError(
            f"expected 'answer', or a list of 'answers', in {place}, found {_said(answers)}; add it"
        )
    kind = record.get("kind", record.get("question_type", ""))
    said = tuple(str(answer) for answer in answers)
    return record["image"], Question(str(record.get("id", number)), record["question"], said, str(kind))


def _check_image(path: Path, place: str) -> None:
    """Raise UserError unless there is an image; only its header is read."""
    if not path.is_file():
        raise UserError(f"expected the image of {place} at {path}, found no such file; check the path")
    try:
        with Image.open(path):
            pass
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise UserError(
            f"expected an image for {place}, found another kind of file at {path}; give another"
        ) from error


def _said(value: Any) -> str:
    return "none" if value in (None, "", [], [None]) else _short(json.dumps(value, ensure_ascii=False))


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
