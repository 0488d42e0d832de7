"""What the user asks to be measured, checked before the long work."""

import os
from dataclasses import dataclass
from pathlib import Path

from asap_export.bench.records import ON_HOST, PEERS, BenchProvider, Precision
from asap_export.cuda import compute_capabilities
from asap_export.errors import UserError
from asap_export.runtime.images import read_image
from asap_export.spec import Dtype

__all__ = ["BenchRequest", "check_request", "chosen_peers"]


@dataclass(frozen=True)
class BenchRequest:
    """What to measure, and how.

    Either ``bundles`` of one model, or a public model's name in ``like``, of which ``contenders`` are made in
    the folder ``work``, in ``dtype``, by default fp32 on the CPU and fp16 on a device. ``peers`` lists who takes
    part beside them, or "none"; by default transformers, and OpenVINO GenAI where ``openvino_python`` says under
    which interpreter, if the checkpoint is found; that is where the bundles' manifests say, or ``model``.
    ``image`` are files; without them pictures are drawn that have ``visual_tokens``. ``keep`` replaces the budget
    of the first bundle that prunes. ``provider`` runs the bundles, OpenVINO beside ONNX Runtime, computing in
    ``precision``; transformers computes on the same device. ``command`` is what the results say they come from.
    """

    bundles: tuple[Path, ...] = ()
    like: str | None = None
    scale: float = 1.0
    layers: int | None = None
    dtype: Dtype | None = None
    contenders: str = "asap,dense,fastv,asap-int4"
    work: Path | None = None
    peers: str | None = None
    model: str | None = None
    openvino_python: str | None = None
    image: tuple[Path, ...] = ()
    visual_tokens: int | None = None
    text_tokens: int = 64
    keep: int | None = None
    cache_lengths: tuple[int, ...] = (128, 542, 1024, 2944)
    decode_steps: int = 8
    rounds: int = 5
    warmup: int = 1
    threads: int | None = None
    provider: BenchProvider = "cpu"
    precision: Precision = "auto"
    profile: bool = False
    curve: tuple[int, ...] = ()
    command: tuple[str, ...] = ()


def check_request(request: BenchRequest) -> None:
    """Raise UserError for what cannot be meant."""
    if bool(request.bundles) == (request.like is not None):
        found = "both" if request.bundles else "neither"
        raise UserError(f"expected bundles or --like, found {found}; give one of them")
    if request.like is not None and request.model is not None:
        raise UserError("expected no --model with --like, which makes a checkpoint of its own; leave it out")
    for name in ("scale", "layers", "dtype", "contenders", "work"):
        if request.like is None and getattr(request, name) != getattr(BenchRequest, name):
            raise UserError(f"expected --{name} with --like, found it with bundles; leave it out")
    _check_peers(request)
    _check_numbers(request)
    for file in request.image:
        read_image(file)
    if request.provider not in ON_HOST and request.profile:
        raise UserError(
            f"expected --profile on the CPU, found --provider {request.provider}; change one of them"
        )
    if request.provider not in ON_HOST and not compute_capabilities():
        raise UserError(
            f"expected a CUDA device for --provider {request.provider}, found none; use --provider cpu"
        )


def chosen_peers(request: BenchRequest) -> tuple[str, ...]:
    """Who takes part beside the bundles."""
    if request.peers is None:
        return PEERS[:2] if request.openvino_python is not None else PEERS[:1]
    return () if request.peers == "none" else tuple(name.strip() for name in request.peers.split(","))


def _check_peers(request: BenchRequest) -> None:
    names, genai = chosen_peers(request), PEERS[1]
    for name in names:
        if name not in PEERS or names.count(name) > 1:
            found = f"{name or 'nothing'}{' twice' if name in PEERS else ''}"
            raise UserError(f"expected --peers among {', '.join(PEERS)}, or none, found {found}; change it")
    if request.provider not in ON_HOST and names not in ((), PEERS[:1]):
        raise UserError(
            f"expected --peers transformers or none with --provider {request.provider}, found {', '.join(names)}; "
            "change one of them"
        )
    if (genai in names) != (request.openvino_python is not None):
        found = f"{genai} without it" if genai in names else "it without that peer"
        raise UserError(
            f"expected --openvino-python with the peer {genai}, found {found}; give both or neither"
        )
    if request.precision != "auto" and request.provider != "openvino":
        raise UserError(
            f"expected --precision with --provider openvino, found it with {request.provider}; change one of them"
        )


def _check_numbers(request: BenchRequest) -> None:
    for option, number, least in (
        ("--rounds", request.rounds, 1),
        ("--warmup", request.warmup, 0),
        ("--decode-steps", request.decode_steps, 1),
        ("--threads", request.threads, 1),
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
