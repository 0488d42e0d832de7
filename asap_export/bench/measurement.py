"""``asap-export bench`` from request to facts: who takes part, on what, in which order, and what came of it."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from asap_export.bench.contenders import bundle_contenders, sizes_of
from asap_export.bench.limits import rate_facts
from asap_export.bench.peers import Peers
from asap_export.bench.prepare import Like, prepared
from asap_export.bench.records import ON_HOST, REFERENCE, SCHEMA, Contender
from asap_export.bench.request import BenchRequest, check_request, chosen_peers
from asap_export.bench.results import comparisons, contender_facts, curve_facts
from asap_export.bench.room import fitting, fitting_curve
from asap_export.bench.schedule import Plan, measure, measure_curve, profile_each
from asap_export.bench.workload import Asked
from asap_export.bundle import Bundle, Manifest, utc_now
from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.errors import UserError
from asap_export.progress import ProgressCallback, no_progress
from asap_export.pruning.config import DEFAULT_KEEP_RATIO, Budget, PruningConfig
from asap_export.pruning.flops import DecoderShape
from asap_export.report import environment_facts

__all__ = ["BenchRequest", "bench"]

Facts = dict[str, Any]


def bench(request: BenchRequest, progress: ProgressCallback = no_progress) -> Facts:
    """Measure; JSON values, raw samples included (docs/benchmark.md). Raises UserError before the long work."""
    check_request(request)
    skipped: list[Facts] = []
    checkpoint, bundles = _subjects(request, progress, skipped)
    spec = bundles[0].manifest.model
    pruned = next((bundle.manifest for bundle in bundles if bundle.manifest.pruning.prunes), None)
    contenders = bundle_contenders(bundles, request.provider, request.precision, request.threads)
    if checkpoint is not None:
        peers = Peers(checkpoint, _converted_folder(request, checkpoint), skipped, progress)
        contenders += _peer_contenders(request, peers, bundles[0], pruned)
    budget = Budget(keep=request.keep) if request.keep is not None else Budget(ratio=DEFAULT_KEEP_RATIO)
    if request.keep is None and pruned is not None:
        budget = pruned.budget
    with tempfile.TemporaryDirectory(prefix="asap-export-bench-") as name:
        folder = Path(name)
        asked = Asked(request, spec, budget, pruned.pruning.prune_after if pruned else 1, folder)
        workload = asked.workload()
        curve = asked.curve(workload)
        fresh, note = True, None  # a GPU's memory is estimated by nobody: one process at a time has it
        if request.provider in ON_HOST:
            contenders, fresh, note = fitting(request.cache_lengths, contenders, spec, workload, skipped)
            contenders = [REFERENCE, *contenders]
        threads = request.threads or len(os.sched_getaffinity(0))
        plan = Plan(
            workload, request.rounds, request.warmup, request.cache_lengths, request.decode_steps, threads,
            folder, fresh,
        )  # fmt: skip
        measured = measure(contenders, plan, progress)
        of_bundles = [contender for contender in contenders if contender.kind == "bundle"]
        profiled = [replace(each, kind="profiled") for each in of_bundles if each.provider == "cpu"]
        profiles = profile_each(profiled, plan, progress) if request.profile else None
        ours = _ours(of_bundles)
        if request.provider in ON_HOST:
            curve = fitting_curve(curve, ours, spec, skipped)
        curves = measure_curve(ours, curve, plan, progress) if curve else []
    failed = [
        *({"name": each.contender.name, "reason": each.failed} for each in measured if each.failed),
        *(
            {"name": f"{each.contender.name}, curve", "reason": each.failed}
            for each, _ in curves
            if each.failed
        ),
    ]
    shape = DecoderShape.of(spec)
    rates = rate_facts(
        [sample for each in measured if each.contender == REFERENCE for sample in each.prefill]
    )
    return {
        **_setting_facts(request, shape, plan),
        "note": note,
        "rates": rates,
        "contenders": [
            contender_facts(samples, workload, shape, rates)
            for samples in measured
            if samples.contender != REFERENCE
        ],
        "skipped": skipped + failed,
        "comparisons": comparisons(measured, workload, shape),
        "profiles": profiles,
        "curve": curve_facts(curves, shape),
    }


def _peer_contenders(
    request: BenchRequest, peers: Peers, first: Bundle, pruned: Manifest | None
) -> list[Contender]:
    names, found = chosen_peers(request), list[Contender]()
    if "transformers" in names:
        pruning = pruned.pruning if pruned else PruningConfig()
        found += peers.transformers(pruning, first.manifest.dtype, request.provider)
    if request.openvino_python is not None:
        found += peers.openvino_genai(request.openvino_python, first.manifest.model.dtype)
    if "llama.cpp" in names:
        found += peers.llama_cpp()
    return found


def _subjects(
    request: BenchRequest, progress: ProgressCallback, skipped: list[Facts]
) -> tuple[Path | None, list[Bundle]]:
    """The checkpoint for peers, where they take part, and the bundles."""
    names = chosen_peers(request)
    if request.like is not None:
        listed = tuple(name.strip() for name in request.contenders.split(","))
        work = request.work or _cache_folder()
        dtype = request.dtype or ("fp32" if request.provider in ON_HOST else "fp16")
        like = Like(request.like, request.scale, request.layers, dtype, listed, work)
        checkpoint, bundles = prepared(like, progress)
        return checkpoint if names else None, bundles
    bundles = [Bundle.open(path) for path in request.bundles]
    if not names:
        return None, bundles
    source = bundles[0].manifest.source
    try:
        opened = open_checkpoint(
            request.model or (None if source.id == "demo" else source.id), None, progress
        )
    except UserError as error:
        if request.model is not None or request.peers is not None:
            raise
        reason = f"{error.message}; give the checkpoint's place with --model"
        skipped += [{"name": name, "reason": reason} for name in names]
        return None, bundles
    if sizes_of(opened.spec) != sizes_of(bundles[0].manifest.model):
        raise UserError(
            f"expected the checkpoint that {bundles[0].path} was made of, found a model of other sizes in "
            f"{opened.folder}; change --model"
        )
    return opened.folder, bundles


def _converted_folder(request: BenchRequest, checkpoint: Path) -> Path:
    """Where what is made of a checkpoint lies: beside one of ``--like``, else in the cache."""
    if request.like is not None:
        return checkpoint.parent
    stats = [(file.name, file.stat()) for file in sorted(checkpoint.iterdir())]
    told = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    return _cache_folder() / f"{checkpoint.name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "asap-export" / "bench"


def _ours(contenders: Sequence[Contender]) -> list[Contender]:
    """The first bundle that prunes and its dense baseline, as far as there are such."""
    pruned = [contender for contender in contenders if contender.method == "asap"][:1]
    families = {contender.family for contender in pruned or contenders[:1]}
    dense = [contender for contender in contenders if not contender.prunes and contender.family in families]
    return pruned + dense[:1]


def _setting_facts(request: BenchRequest, shape: DecoderShape, plan: Plan) -> Facts:
    names = tuple(Path(file).name for file in plan.workload.images)
    return {
        "schema": SCHEMA,
        "date": utc_now(),
        "command": list(request.command),
        "machine": environment_facts(),
        "model": {**asdict(shape), "like": request.like, "scale": request.scale},
        "workload": {**asdict(plan.workload), "images": names},
        "settings": {
            "rounds": plan.rounds,
            "warmup": plan.warmup,
            "cache_lengths": list(plan.cache_lengths),
            "decode_steps": plan.decode_steps,
            "threads": plan.threads,
            "provider": request.provider,
            "processes": "fresh" if plan.fresh else "kept",
        },
    }
