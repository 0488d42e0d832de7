"""From lmms-eval's requests to a bundle's answers, without lmms-eval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asap_export.errors import UserError
from asap_export.pruning.config import Budget
from asap_export.runtime.answering import pieces
from asap_export.runtime.images import ImageSource
from asap_export.runtime.model import Model
from asap_export.runtime.providers import Provider
from asap_export.runtime.request import Request

__all__ = ["ModelArguments", "TaskRequest", "answer", "model_arguments", "request_of"]

_MAX_NEW_TOKENS = 256  # of a task that does not say how many
# What a task may say of how tokens are chosen, in numbers or as text.
_CHOOSING: Mapping[str, type] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
    "no_repeat_ngram_size": int,
    "min_new_tokens": int,
    "seed": int,
}


@dataclass(frozen=True)
class ModelArguments:
    """What ``--model_args`` may hold; at most one field of ``budget`` replaces the bundle's own."""

    bundle: Path
    provider: Provider = "auto"
    threads: int | None = None
    budget: Mapping[str, Any] = field(default_factory=dict)


def model_arguments(given: Mapping[str, Any]) -> ModelArguments:
    """The arguments ``bundle``, ``provider``, ``threads``, ``keep``, ``keep_ratio`` and ``budget``.

    lmms-eval adds ``batch_size``, ``max_batch_size`` and ``device``. Raises UserError for any other, for a batch
    (its rows would share one number of kept tokens, so an answer would depend on its neighbours), or no bundle.
    """
    known = {"bundle", "provider", "threads", "keep", "keep_ratio", "budget"}
    others = sorted(set(given) - known - {"batch_size", "max_batch_size", "device"})
    if others:
        raise UserError(
            f"expected model_args among {', '.join(sorted(known))}, found {others[0]}; leave it out"
        )
    if "bundle" not in given:
        raise UserError("expected --model_args bundle=FOLDER, found no bundle; export one with asap-export")
    if str(given.get("batch_size", 1)) != "1":
        raise UserError(
            f"expected --batch_size 1, found {given['batch_size']}: rows of a batch share one number of kept "
            "tokens; leave it out"
        )
    provider = given.get("provider", "cpu" if given.get("device") == "cpu" else "auto")
    budget = {name: given[name] for name in ("keep", "keep_ratio", "budget") if given.get(name) is not None}
    if budget:  # a wrong one is refused before the bundle is loaded
        Budget(budget.get("keep"), budget.get("keep_ratio"), budget.get("budget"))
    return ModelArguments(Path(str(given["bundle"])), provider, given.get("threads"), budget)


@dataclass(frozen=True)
class TaskRequest:
    """One request: the task's text, its images, and its ``generation_kwargs``."""

    text: str
    images: tuple[ImageSource, ...]
    settings: Mapping[str, Any]


def request_of(arguments: Sequence[Any], documents: Mapping[str, Any]) -> TaskRequest:
    """The question in an ``Instance``'s arguments: context, generation_kwargs, doc_to_visual, doc_id, task, split.

    ``documents``: by task, split and number.
    """
    context, settings, doc_to_visual, number, task, split = arguments
    visuals = doc_to_visual(documents[task][split][number]) if callable(doc_to_visual) else doc_to_visual
    return TaskRequest(context, tuple(_flat(visuals)), dict(settings or {}))


def _flat(visuals: Any) -> list[ImageSource]:
    """A document's visuals as a list: tasks give one, several, lists in a list, or None."""
    if visuals is None:
        return []
    if isinstance(visuals, list | tuple):
        return [image for visual in visuals for image in _flat(visual)]
    return [visuals]


def answer(model: Model, question: TaskRequest, budget: Mapping[str, Any]) -> str:
    """The bundle's answer, up to the first of the task's ``until`` strings.

    ``max_new_tokens`` is lowered to what the model's positions and the engine's limits leave room for. Raises
    UserError for images and settings that a bundle cannot take.
    """
    settings = question.settings
    if int(settings.get("num_beams") or 1) != 1:
        raise UserError(
            f"expected num_beams of 1, found {settings['num_beams']}: bundles decode without beams; set it with "
            "--gen_kwargs num_beams=1"
        )
    prompt = model.reader.read(question.text, question.images)
    room = model.spec.max_position_embeddings - len(prompt.input_ids) + 1
    if model.provider == "tensorrt":
        room = min(room, model.bundle.manifest.limits.max_new_tokens)
    wanted = int(settings.get("max_new_tokens") or settings.get("max_gen_toks") or _MAX_NEW_TOKENS)
    request = Request(
        question.images,
        question.text,
        max(1, min(wanted, room)),
        **_choosing(settings),
        **budget,
    )
    return "".join(pieces(model.reader, model.graphs, prompt, request))


def _choosing(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the task says of how tokens are chosen, as arguments of a request.

    Greedy where ``do_sample`` is off, and as in transformers at temperature 1 where it is on and none is given.
    """
    said: dict[str, Any] = {name: settings[name] for name in _CHOOSING if settings.get(name) is not None}
    if (sampled := settings.get("do_sample")) is not None:
        said["temperature"] = said.get("temperature", 1.0) if sampled else 0.0
    if said.get("temperature") == 0:
        said.pop("top_p", None)  # tasks that are greedy name 0
    found = {name: kind(said[name]) for name, kind in _CHOOSING.items() if name in said}
    return found | {"stop": _stops(settings.get("until")) or None}


def _stops(until: str | Sequence[str] | None) -> tuple[str, ...]:
    until = [until] if isinstance(until, str) else until or ()
    return tuple(stop for stop in until if stop)
