"""``asap-export bench`` from request to facts: who takes part, on what, in which order, and what came of it."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from asap_export.bench.contenders import bundle_contenders, peer_contenders, sizes_of
from asap_export.bench.prepare import Like, converted_for_openvino, prepared
from asap_export.bench.records import SCHEMA, Contender, Workload
from asap_export.bench.request import BenchRequest, checked
from asap_export.bench.results import comparisons, contender_facts, curve_facts
from asap_export.bench.room import fitting, fitting_curve
from asap_export.bench.schedule import Plan, Samples, measure, measure_curve, profile_each
from asap_export.bench.targets import judged
from asap_export.bench.workload import drawn_images, images_needed
from asap_export.bundle import Bundle, utc_now
from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.errors import UserError
from asap_export.model.anyres import TileGeometry, max_visual_tokens, packing
from asap_export.progress import Progress, ProgressCallback, no_progress
from asap_export.pruning.config import DEFAULT_KEEP_RATIO, PruningConfig
from asap_export.pruning.flops import DecoderShape
from asap_export.report import environment_facts
from asap_export.runtime.images import read_image
from asap_export.spec import ModelSpec

__all__ = ["BenchRequest", "bench"]

Facts = dict[str, Any]

VISUAL_TOKENS = 2880  # of the paper's tables
TEXT_TOKENS = 64
PROMPT = "What is shown in this picture?"


def bench(request: BenchRequest, progress: ProgressCallback = no_progress) -> Facts:
    """Measure; JSON values, raw samples included (docs/benchmark.md). Raises UserError before the long work."""
    names = checked(request)
    skipped: list[Facts] = []
    if request.provider != "cpu":
        skipped += [{"name": name, "reason": "runs on the CPU"} for name in names]
        names = ()
    checkpoint, bundles = _subjects(request, progress, names, skipped)
    spec = bundles[0].manifest.model
    pruned = next((bundle for bundle in bundles if bundle.manifest.pruning.prunes), None)
    contenders = bundle_contenders(bundles, request.provider)
    if names and checkpoint is not None:
        contenders += _peers(request, checkpoint, names, pruned, skipped, progress)
    with tempfile.TemporaryDirectory(prefix="asap-export-bench-") as name:
        folder = Path(name)
        workload = _workload(request, spec, pruned, folder)
        curve = _curve_workloads(request, spec, pruned, folder, workload)
        contenders, fresh, note = _fitting(request, contenders, spec, workload, skipped)
        threads = request.threads or len(os.sched_getaffinity(0))
        plan = Plan(
            workload, request.rounds, request.warmup, request.cache_lengths, request.decode_steps, threads,
            folder, fresh,
        )  # fmt: skip
        measured = measure(contenders, plan, progress)
        of_bundles = [contender for contender in contenders if contender.kind == "bundle"]
        profiles = _profiles(of_bundles, plan, progress) if request.profile else None
        ours = _ours(of_bundles)
        if request.provider == "cpu":
            curve = fitting_curve(curve, ours, spec, skipped)
        curves = measure_curve(ours, curve, plan, progress) if curve else []
    return _facts(request, spec, plan, measured, skipped, profiles, curves, note)


def _peers(
    request: BenchRequest,
    checkpoint: Path,
    names: Sequence[str],
    pruned: Bundle | None,
    skipped: list[Facts],
    progress: ProgressCallback,
) -> list[Contender]:
    openvino = _openvino(request, checkpoint, names, skipped, progress)
    left_out = {row["name"] for row in skipped}
    pruning = pruned.manifest.pruning if pruned else PruningConfig()
    taking_part = [name for name in names if name not in left_out]
    return peer_contenders(taking_part, checkpoint, pruning, openvino, request.openvino_python)


def _fitting(
    request: BenchRequest,
    contenders: list[Contender],
    spec: ModelSpec,
    workload: Workload,
    skipped: list[Facts],
) -> tuple[list[Contender], bool, str | None]:
    """As ``fitting``; a device's memory is estimated by nobody, so one process at a time has it."""
    if request.provider == "cpu":
        return fitting(request.processes, request.cache_lengths, contenders, spec, workload, skipped)
    return contenders, request.processes != "kept", None


def _profiles(contenders: Sequence[Contender], plan: Plan, progress: ProgressCallback) -> dict[str, Facts]:
    return profile_each([replace(contender, kind="profiled") for contender in contenders], plan, progress)


def _subjects(
    request: BenchRequest, progress: ProgressCallback, names: Sequence[str], skipped: list[Facts]
) -> tuple[Path | None, list[Bundle]]:
    """The checkpoint for peers, where there is one, and the bundles."""
    if request.like is not None:
        chosen = request.contenders or "asap,dense,fastv,asap-int4"
        listed = tuple(name.strip() for name in chosen.split(","))
        work = request.work or _cache_folder()
        return prepared(Like(request.like, request.scale, request.layers, listed, work), progress)
    bundles = [Bundle.open(path) for path in request.bundles]
    if not names:
        return None, bundles
    source = bundles[0].manifest.source
    known = None if source.id == "demo" else source.id
    try:
        checkpoint = open_checkpoint(request.model or known, None, progress)
    except UserError as error:
        if request.model is not None or request.peers is not None:
            raise
        reason = f"{error.message}; give the checkpoint's place with --model"
        skipped += [{"name": name, "reason": reason} for name in names]
        return None, bundles
    if sizes_of(checkpoint.spec) != sizes_of(bundles[0].manifest.model):
        raise UserError(
            f"expected the checkpoint that {bundles[0].path} was made of, found a model of other sizes in "
            f"{checkpoint.folder}; change --model"
        )
    return checkpoint.folder, bundles


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "asap-export" / "bench"


def _openvino(
    request: BenchRequest,
    checkpoint: Path,
    names: Sequence[str],
    skipped: list[Facts],
    progress: ProgressCallback,
) -> Path | None:
    """The converted model: the given one, or one that is made beside the synthetic checkpoint."""
    if "openvino-genai" not in names or request.openvino_model is not None:
        return request.openvino_model
    if request.like is None or request.openvino_python is None:
        reason = (
            "needs a converted model and a Python with openvino_genai; give --openvino-python, and with bundles "
            "--openvino-model"
        )
        skipped.append({"name": "openvino-genai", "reason": reason})
        return None
    progress(Progress("Convert for OpenVINO"))
    try:
        return converted_for_openvino(checkpoint, request.openvino_python, checkpoint.with_name("openvino"))
    except UserError as error:
        skipped.append({"name": "openvino-genai", "reason": error.message})
        return None


def _workload(request: BenchRequest, spec: ModelSpec, pruned: Bundle | None, folder: Path) -> Workload:
    """The prompt that all are given."""
    geometry = TileGeometry.of(spec)
    if not request.images:
        wanted = request.visual_tokens
        images = request.image_count or 1
        most = max_visual_tokens(geometry)
        tokens = wanted if wanted is not None else images * min(VISUAL_TOKENS, most)
        if request.image_count is not None and tokens > images * most:
            raise UserError(
                f"expected --visual-tokens of at most {images * most:,}, what {images} of these images can have, "
                f"found {tokens:,}; lower it, or leave --images out"
            )
        return _drawn(request, spec, pruned, folder, tokens)
    sizes = []
    for file in request.images:
        with Image.open(file):
            picture = read_image(file)
            sizes.append((picture.height, picture.width))
    there = sum(packing(sizes, geometry).visual_tokens)
    tokens = there if request.visual_tokens is None else request.visual_tokens
    if tokens > there:
        raise UserError(f"expected --visual-tokens of at most {there}, what the images have, found {tokens}")
    files = tuple(str(file.resolve()) for file in request.images)
    return _asked(request, files, tokens, spec, pruned)


def _curve_workloads(
    request: BenchRequest, spec: ModelSpec, pruned: Bundle | None, folder: Path, workload: Workload
) -> list[Workload]:
    """Prompts of the curve's visual tokens, of which a cut keeps the same part as of ``workload``'s."""
    share = workload.keep / workload.visual_tokens
    return [
        replace(_drawn(request, spec, pruned, folder, tokens), keep=max(1, round(share * tokens)))
        for tokens in sorted(request.curve)
    ]


def _drawn(
    request: BenchRequest, spec: ModelSpec, pruned: Bundle | None, folder: Path, tokens: int
) -> Workload:
    geometry = TileGeometry.of(spec)
    images = max(images_needed(tokens, geometry), request.image_count or 1)
    files = tuple(map(str, drawn_images(folder, tokens, images, geometry)))
    return _asked(request, files, tokens, spec, pruned)


def _asked(
    request: BenchRequest, files: tuple[str, ...], tokens: int, spec: ModelSpec, pruned: Bundle | None
) -> Workload:
    if request.keep is not None:
        keep = min(request.keep, tokens)
    elif pruned is not None:
        after = pruned.manifest.pruning.prune_after
        keep = pruned.manifest.budget.keep_for(tokens, spec.layers, after)
    else:
        keep = max(1, round(tokens * DEFAULT_KEEP_RATIO))
    text = TEXT_TOKENS if request.text_tokens is None else request.text_tokens
    return Workload(files, request.prompt or PROMPT, tokens, text, keep)


def _ours(contenders: Sequence[Contender]) -> list[Contender]:
    """The first bundle that prunes and its dense baseline, as far as there are such."""
    pruned = [contender for contender in contenders if contender.method == "asap"][:1]
    families = {contender.family for contender in pruned} or {
        contender.family for contender in contenders[:1]
    }
    dense = [contender for contender in contenders if not contender.prunes and contender.family in families]
    return pruned + dense[:1]


def _facts(
    request: BenchRequest,
    spec: ModelSpec,
    plan: Plan,
    measured: Sequence[Samples],
    skipped: Sequence[Facts],
    profiles: dict[str, Facts] | None,
    curves: list[tuple[Samples, list[Workload]]],
    note: str | None,
) -> Facts:
    shape = DecoderShape.of(spec)
    workload = plan.workload
    names = tuple(Path(file).name for file in workload.images)
    facts: Facts = {
        "schema": SCHEMA,
        "date": utc_now(),
        "command": list(request.command),
        "machine": environment_facts(),
        "model": {**asdict(shape), "like": request.like, "scale": request.scale},
        "workload": {**asdict(workload), "images": names},
        "settings": {
            "rounds": plan.rounds,
            "warmup": plan.warmup,
            "cache_lengths": list(plan.cache_lengths),
            "decode_steps": plan.decode_steps,
            "threads": plan.threads,
            "provider": request.provider,
            "processes": "fresh" if plan.fresh else "kept",
        },
        "note": note,
        "contenders": [contender_facts(samples, workload, shape) for samples in measured],
        "skipped": [
            *skipped,
            *({"name": each.contender.name, "reason": each.failed} for each in measured if each.failed),
        ],
        "comparisons": comparisons(measured, workload, shape),
        "profiles": profiles,
        "curve": curve_facts(curves, shape),
    }
    facts["skipped"] += [
        {"name": f"{samples.contender.name}, curve", "reason": samples.failed}
        for samples, _ in curves
        if samples.failed
    ]
    return {**facts, "targets": judged(facts)}
