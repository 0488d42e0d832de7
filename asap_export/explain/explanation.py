"""From prompts with images to pictures, numbers and a page: all that ``asap-export explain`` does."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from asap_export.bundle.staged import StagedFolder
from asap_export.errors import UserError
from asap_export.explain.explained import ExplainedModel, open_explained
from asap_export.explain.page import page
from asap_export.explain.pictures import Drawing, pictures_of
from asap_export.explain.shift import Mean, mean_of, raster_correlation, third_means
from asap_export.explain.tokens import FATES, MEASURES, Tokens, tokens_of
from asap_export.explain.views import ImageTokens, View, base_box, image_tokens
from asap_export.model.anyres import visual_token_count
from asap_export.model.reference import Reference
from asap_export.progress import Progress, ProgressCallback, no_progress
from asap_export.pruning.config import Budget
from asap_export.pruning.cut import criterion
from asap_export.runtime.images import read_image

__all__ = ["FACTS", "PAGE", "ExplainRequest", "Explanation", "explain"]

PAGE, FACTS, PICTURES = "index.html", "explanation.json", "pictures"
_THIRDS = ("causal", "sg_bimask")


@dataclass(frozen=True)
class ExplainRequest:
    """What to explain; None stands for the bundle's own value or the default of an export.

    ``images`` are those of one prompt; ``folder`` holds images that get a prompt each. ``pruning``: fields of
    ``PruningConfig`` to replace. ``pictures``: of how many images pictures are drawn; the numbers count all.
    """

    prompt: str
    source: str | None = None  # a bundle, a checkpoint's folder or a hub id; None is the built-in demo
    model: str | None = None  # where a bundle's checkpoint is now
    revision: str | None = None
    images: tuple[Path, ...] = ()
    folder: Path | None = None
    output: Path | None = None
    overwrite: bool = False
    budget: Budget | None = None
    pruning: Mapping[str, Any] = field(default_factory=dict)
    pictures: int = 6


@dataclass(frozen=True)
class Explanation:
    """Where the page is, and all numbers as JSON values."""

    output: Path
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Explained:
    """One image of a prompt: its own part of the prompt's visual tokens."""

    file: Path
    image: Image.Image
    places: ImageTokens
    first: int  # of its tokens among the prompt's
    tokens: Tokens  # of the whole prompt


def explain(request: ExplainRequest, progress: ProgressCallback = no_progress) -> Explanation:
    """Write the page, its pictures and its numbers to a folder of their own.

    Raises UserError where there is no image, one cannot be read, the budget does not fit, or nothing is pruned.
    """
    prompts = _prompts(request)
    if request.pictures < 0:
        raise UserError(f"expected --pictures of 0 or more, found {request.pictures}")
    output = request.output or Path(f"{_name(request.source)}.explained")
    with StagedFolder(output, request.overwrite, "an explanation", _is_explanation) as folder:
        subject = open_explained(
            request.source, request.model, request.revision, request.budget, request.pruning, progress
        )
        most = _most_visual_tokens(subject, prompts, progress)
        reference = subject.load(most, progress)
        (folder.path / PICTURES).mkdir()
        facts: list[dict[str, Any]] = []
        drawn: list[list[Drawing]] = []
        for image in _explained(subject, reference, request.prompt, prompts, progress):
            facts.append(_image_facts(image))
            if len(drawn) < request.pictures:
                drawn.append(pictures_of(image.image, image.places, image.tokens, image.first))
                _save(drawn[-1], folder.path / PICTURES, f"{len(drawn):02d}-{image.file.stem}")
        progress(Progress("Write the page"))
        whole = _facts(subject, request, facts)
        (folder.path / FACTS).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        (folder.path / PAGE).write_text(page(whole, drawn), encoding="utf-8")
        folder.publish()
    return Explanation(folder.output, whole)


def _prompts(request: ExplainRequest) -> list[tuple[Path, ...]]:
    """The images of each prompt."""
    if bool(request.images) == (request.folder is not None):
        found = "both" if request.images else "neither"
        raise UserError(f"expected --image FILE or --images FOLDER, found {found}; give one of them")
    if request.folder is None:
        return [request.images]
    if not request.folder.is_dir():
        found = "a file" if request.folder.exists() else "nothing"
        raise UserError(f"expected a folder of images at {request.folder}, found {found}; check the path")
    known = Image.registered_extensions()
    files = sorted(file for file in request.folder.iterdir() if file.suffix.lower() in known)
    if not files:
        raise UserError(f"expected images in {request.folder}, found none; give another folder")
    return [(file,) for file in files]


def _name(source: str | None) -> str:
    return Path(source).resolve().name.removesuffix(".bundle") if source else "demo"


def _is_explanation(folder: Path) -> bool:
    return (folder / FACTS).is_file() and (folder / PAGE).is_file()


def _save(pictures: Sequence[Drawing], folder: Path, prefix: str) -> None:
    for picture in pictures:
        (folder / f"{prefix}-{picture.name}.png").write_bytes(picture.png)


def _most_visual_tokens(
    subject: ExplainedModel, prompts: Sequence[tuple[Path, ...]], progress: ProgressCallback
) -> int:
    """Of any prompt. Raises UserError, before the model is loaded, for unreadable images and too small budgets."""
    most = 0
    for number, files in enumerate(prompts):
        progress(Progress("Read images", number / len(prompts), files[0].name))
        images = [read_image(file) for file in files]
        count = sum(visual_token_count((image.height, image.width), subject.geometry) for image in images)
        subject.keep_for(count)
        most = max(most, count)
    return most


def _explained(
    subject: ExplainedModel,
    reference: Reference,
    text: str,
    prompts: Sequence[tuple[Path, ...]],
    progress: ProgressCallback,
) -> Iterator[_Explained]:
    for number, files in enumerate(prompts):
        progress(Progress("Explain", number / len(prompts), ", ".join(file.name for file in files)))
        images = [read_image(file) for file in files]
        tokens = tokens_of(subject.cut(reference, subject.reader.read(text, images)), subject.pruning)
        first = 0
        for file, image in zip(files, images, strict=True):
            size = image.height, image.width
            base = base_box(size, subject.reader.processor.image_processor, subject.geometry)
            places = image_tokens(size, subject.geometry, base)
            yield _Explained(file, image, places, first, tokens)
            first += places.count


def _facts(subject: ExplainedModel, request: ExplainRequest, images: list[dict[str, Any]]) -> dict[str, Any]:
    """All numbers as JSON values; ``shift`` is the mean over images, by view and measure."""
    pruning = subject.pruning
    return {
        "source": subject.name,
        "prompt": request.prompt,
        "pruning": asdict(pruning),
        "criterion": "random" if pruning.method == "random" else criterion(pruning),
        "budget": asdict(subject.budget),
        "layers": subject.spec.layers,
        "shift": {
            name: {measure: _mean_fact(mean_of(found)) for measure, found in measures.items()}
            for name, measures in _by_view(images, "shift").items()
        },
        "thirds": {
            name: {
                measure: [_mean_fact(mean_of([third and third[n] for third in found])) for n in range(3)]
                for measure, found in measures.items()
            }
            for name, measures in _by_view(images, "thirds").items()
        },
        "images": images,
    }


def _mean_fact(mean: Mean | None) -> dict[str, Any] | None:
    return asdict(mean) if mean else None


def _by_view(images: list[dict[str, Any]], what: str) -> dict[str, dict[str, list[Any]]]:
    """The values of every view that images have, by the view's name and measure."""
    found: dict[str, dict[str, list[Any]]] = {}
    for view in (view for image in images for view in image["views"]):
        for measure, value in view[what].items():
            found.setdefault(view["name"], {}).setdefault(measure, []).append(value)
    return found


def _image_facts(explained: _Explained) -> dict[str, Any]:
    places, tokens = explained.places, explained.tokens
    own = tokens.fate[explained.first : explained.first + places.count]
    return {
        "file": str(explained.file),
        "width": explained.image.width,
        "height": explained.image.height,
        "visual_tokens": places.count,
        "fates": _counts(own),
        "without_pixels": {
            name: _counts(own[numbers])
            for name, numbers in (("newline", places.newline), ("class token", places.class_token))
            if len(numbers)
        },
        "views": [_view_facts(view, explained) for view in places.views],
    }


def _view_facts(view: View, explained: _Explained) -> dict[str, Any]:
    number = view.token + explained.first  # [rows, columns], among the prompt's tokens
    scores = {measure: explained.tokens.scores[measure][number] for measure in MEASURES}
    return {
        "name": view.name,
        "rows": number.shape[0],
        "columns": number.shape[1],
        "fates": _counts(explained.tokens.fate[number]),
        "shift": {measure: raster_correlation(score) for measure, score in scores.items()},
        "thirds": {measure: third_means(scores[measure]) for measure in _THIRDS},  # type: ignore[index]
    }


def _counts(fates: npt.NDArray[np.int8]) -> dict[str, int]:
    return {name: int((fates == code).sum()) for code, name in enumerate(FATES)}
