"""What the user asks to be measured, checked before the long work."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asap_export.bench.contenders import chosen_peers
from asap_export.bench.records import BenchProvider
from asap_export.errors import UserError
from asap_export.runtime.cuda import compute_capabilities
from asap_export.runtime.images import read_image

__all__ = ["BenchRequest", "checked"]


@dataclass(frozen=True)
class BenchRequest:
    """What to measure, and how.

    Either ``bundles`` of one model, or a public model's name in ``like``. ``peers`` is a list as the user
    writes it, ``model`` the peers' checkpoint where it is not where the bundles' manifests say. ``images`` are
    files; without them ``image_count`` pictures are drawn, that have ``visual_tokens``. ``keep`` replaces the
    budget of the first bundle that prunes. ``processes``: "kept" for all rounds, "fresh" in each of them, or
    what memory allows. ``provider`` runs the bundles; on a CUDA device they have no peers."""

    bundles: tuple[Path, ...] = ()
    like: str | None = None
    scale: float = 1.0
    layers: int | None = None
    work: Path | None = None
    contenders: str | None = None
    peers: str | None = None
    model: str | None = None
    openvino_python: str | None = None
    openvino_model: Path | None = None
    images: tuple[Path, ...] = ()
    image_count: int | None = None
    prompt: str | None = None
    visual_tokens: int | None = None
    text_tokens: int | None = None
    keep: int | None = None
    cache_lengths: tuple[int, ...] = (128, 542, 1024, 2944)
    decode_steps: int = 8
    rounds: int = 5
    warmup: int = 1
    threads: int | None = None
    profile: bool = False
    curve: tuple[int, ...] = ()
    processes: Literal["auto", "kept", "fresh"] = "auto"
    provider: BenchProvider = "cpu"
    command: tuple[str, ...] = field(default=())


def checked(request: BenchRequest) -> tuple[str, ...]:
    """The peers' names. Raises UserError for what cannot be meant."""
    _check_subjects(request)
    _check_numbers(request)
    names = chosen_peers(request.peers)
    _check_provider(request, names)
    for option, given in (
        ("--openvino-python", request.openvino_python),
        ("--openvino-model", request.openvino_model),
    ):
        if given is not None and "openvino-genai" not in names:
            raise UserError(f"expected {option} with the peer openvino-genai, found it alone; add the peer")
    python, converted = request.openvino_python, request.openvino_model
    if python is not None and shutil.which(python) is None:
        raise UserError(f"expected a Python at {python}, found none; check --openvino-python")
    if converted is not None and not converted.is_dir():
        raise UserError(f"expected a folder at {converted}, found none; check --openvino-model")
    for file in request.images:
        read_image(file)
    return names


def _check_subjects(request: BenchRequest) -> None:
    if bool(request.bundles) == (request.like is not None):
        found = "both" if request.bundles else "neither"
        raise UserError(f"expected bundles or --like, found {found}; give one of them")
    idle = {
        "--scale": request.scale != 1.0,
        "--layers": request.layers is not None,
        "--work": request.work is not None,
        "--contenders": request.contenders is not None,
    }
    for option in (name for name, given in idle.items() if given and request.like is None):
        raise UserError(f"expected {option} with --like, found it with bundles; leave it out")
    if request.like is not None and request.model is not None:
        raise UserError("expected no --model with --like, which makes a checkpoint of its own; leave it out")
    if request.images and request.image_count is not None:
        raise UserError("expected --image or --images, found both; give one of them")


def _check_numbers(request: BenchRequest) -> None:
    for option, number, least in (
        ("--rounds", request.rounds, 1),
        ("--warmup", request.warmup, 0),
        ("--decode-steps", request.decode_steps, 1),
        ("--threads", request.threads, 1),
        ("--images", request.image_count, 1),
        ("--visual-tokens", request.visual_tokens, 1),
        ("--text-tokens", request.text_tokens, 1),
        ("--keep", request.keep, 1),
        *(("--cache-lengths", length, 1) for length in request.cache_lengths),
        *(("--curve", tokens, 1) for tokens in request.curve),
    ):
        if number is not None and number < least:
            raise UserError(f"expected {option} of at least {least}, found {number}; raise it")
    cores = len(os.sched_getaffinity(0))
    if request.threads is not None and request.threads > cores:
        raise UserError(
            f"expected --threads of at most {cores}, the cores there are, found {request.threads}; lower it"
        )


def _check_provider(request: BenchRequest, names: Sequence[str]) -> None:
    if request.provider == "cpu":
        return
    if request.profile:
        raise UserError(
            f"expected --profile on the CPU, found --provider {request.provider}; change one of them"
        )
    if request.peers is not None and names:
        raise UserError(
            f"expected no peers with --provider {request.provider}, found {names[0]}, which runs on the CPU; "
            "use --peers none"
        )
    if not compute_capabilities():
        raise UserError(
            f"expected a CUDA device for --provider {request.provider}, found none; use --provider cpu"
        )
