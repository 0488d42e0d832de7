"""A bundle against the PyTorch reference of its checkpoint: inputs, operators, graphs, answers."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from asap_export.bundle import Bundle, Manifest
from asap_export.bundle.writer import write_durably
from asap_export.checkpoint.checkpoint import Checkpoint
from asap_export.checkpoint.loading import load_model, load_processor
from asap_export.model.anyres import TileGeometry
from asap_export.model.reference import PromptBatch, Reference
from asap_export.parity.cases import Case, built_in_cases, few_cases, prompt_of
from asap_export.parity.compared import ComparedGraphs, check_layers, compared_graphs
from asap_export.parity.comparison_memory import check_memory
from asap_export.parity.graph_checks import Follower
from asap_export.parity.input_checks import InputChecks
from asap_export.parity.processor_reader import ProcessorReader
from asap_export.parity.quantization import (
    Glance,
    QuantizationError,
    Quantized,
    glance,
    quantize_in_place,
    quantized_file,
)
from asap_export.parity.recording import Ears, RecordedTurn, record, rerun
from asap_export.parity.source import check_source, open_source
from asap_export.parity.verdict import Check, Verdict, tolerance, worst
from asap_export.parity.wiring import check_structure
from asap_export.progress import Progress, ProgressCallback, no_progress
from asap_export.runtime.images import read_image
from asap_export.runtime.openvino_session import Precision
from asap_export.runtime.prompt import BundleReader
from asap_export.runtime.providers import Provider, check_precision

__all__ = ["Report", "verify"]


@dataclass(frozen=True)
class Report:
    """What was compared and what came of it. ``notes`` say what was checked in another way than asked."""

    bundle: str
    dtype: str
    compared_dtype: str
    layers: int  # of the decoder's, compared
    all_layers: int
    provider: str
    limit: float
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    quantization: QuantizationError | None = None
    precision: str = ""  # of products, where OpenVINO computed them

    @property
    def verdict(self) -> Verdict:
        return worst(self.checks)

    @property
    def near_ties(self) -> int:
        """Choices that rounding made otherwise than PyTorch."""
        return sum(check.near_tie for check in self.checks)

    def facts(self) -> dict[str, Any]:
        """For parity.json and the console's tables."""
        return {"verdict": self.verdict, "near_ties": self.near_ties, **asdict(self)}


def verify(
    path: str | Path,
    *,
    model: str | None = None,
    revision: str | None = None,
    provider: Provider = "auto",
    precision: Precision = "auto",
    images: tuple[Path, ...] = (),
    layers: int | None = None,
    max_new_tokens: int = 16,
    progress: ProgressCallback = no_progress,
) -> Report:
    """Compare a bundle with PyTorch on the checkpoint it was made from (``model``, where that has moved).

    ``revision`` of a hub id is by default the commit that the bundle was made from. ``layers``: only the first
    decoder layers, the pruning among them, on fewer prompts; the others' weights are not read. The report is also
    left in the bundle, as parity.json.

    Raises UserError where the bundle is damaged, the checkpoint is not the one it was made from, the provider
    is missing, ``layers`` leaves the pruning out, or memory would not suffice.
    """
    for image in images:
        read_image(image)
    bundle = Bundle.open(path, progress=progress)
    check_layers(bundle, layers, provider)
    check_precision(provider, precision)
    checkpoint = open_source(bundle, model, revision, progress)
    check_memory(checkpoint, bundle.manifest, layers)
    bundle.check_large_files(progress)
    check_source(bundle, checkpoint, progress)
    with compared_graphs(bundle, provider, layers, precision) as subject:
        limit = tolerance(subject.computed, subject.bundle.manifest.model.layers, subject.is_copy)
        cases = _cases(subject, layers is not None, images)
        ran = _run_graphs(subject, cases, max_new_tokens, partial(_keep_for, bundle.manifest), progress)
        recorded = list(zip(cases, ran, strict=True))
        checks, quantization = _compare(
            bundle, checkpoint, subject, recorded, limit, max_new_tokens, progress
        )
    report = Report(
        bundle=str(path),
        dtype=bundle.manifest.dtype,
        compared_dtype=subject.dtype,
        layers=subject.bundle.manifest.model.layers,
        all_layers=bundle.manifest.model.layers,
        provider=subject.provider,
        limit=limit,
        checks=tuple(checks),
        notes=subject.notes,
        quantization=quantization,
        precision=subject.precision,
    )
    try:
        write_durably(bundle.parity_path, json.dumps(report.facts(), indent=1) + "\n")
    except OSError as error:  # a bundle that cannot be written to can be verified all the same
        unsaved = f"parity.json could not be written: {error.strerror}"
        return replace(report, notes=(*report.notes, unsaved))
    return report


def _cases(subject: ComparedGraphs, few: bool, images: tuple[Path, ...]) -> list[Case]:
    manifest = subject.bundle.manifest
    geometry = TileGeometry.of(manifest.model)
    if few:
        return few_cases(geometry, images)
    limits = manifest.limits if subject.provider == "tensorrt" else None
    return built_in_cases(geometry, images, limits, manifest.pruning.prunes)


def _keep_for(manifest: Manifest, visual_tokens: Any) -> int:
    """How many visual tokens of a batch survive whose rows have so many, [B]: the most that one keeps."""
    depth = manifest.model.layers, manifest.pruning.prune_after
    return max(manifest.budget.keep_for(count, *depth) for count in visual_tokens.tolist())


def _run_graphs(
    subject: ComparedGraphs,
    cases: list[Case],
    max_new_tokens: int,
    keep_for: Callable[[Any], int],
    progress: ProgressCallback,
) -> list[list[RecordedTurn]]:
    """What the bundle does with the cases; its sessions are gone when this returns, and were never open all at
    once."""
    progress(Progress("Run graphs", 0.0, "open them"))
    running, *others = subject.forms
    steps = len(cases) * len(subject.forms)
    ears = Ears(running)
    model = subject.open(ears)
    recorded = []
    for number, case in enumerate(cases):
        progress(Progress("Run graphs", number / steps, case.name))
        # A budget that is an average over layers means those of the whole model.
        own = keep_for if subject.is_shortened and subject.bundle.manifest.pruning.prunes else None
        recorded.append(record(case, model, ears, max_new_tokens, own))
    del model
    for place, form in enumerate(others, 1):
        session = form.open("cuda" if subject.provider == "cuda" else "cpu")
        for number, turns in enumerate(recorded):
            progress(Progress("Run graphs", (place * len(cases) + number) / steps, f"{form.name}.onnx"))
            rerun(turns, session, form)
        del session
    return recorded


def _compare(
    bundle: Bundle,
    checkpoint: Checkpoint,
    subject: ComparedGraphs,
    recorded: list[tuple[Case, list[RecordedTurn]]],
    limit: float,
    max_new_tokens: int,
    progress: ProgressCallback,
) -> tuple[list[Check], QuantizationError | None]:
    """What was recorded against PyTorch with the bundle's weights."""
    manifest, model = bundle.manifest, subject.bundle.manifest.model
    progress(Progress("Compare with PyTorch", 0.0, "load the model"))
    # Rounded as the bundle's weights are, and then computed with in float32.
    llava = load_model(checkpoint, manifest.dtype, model.layers).float()
    reference = Reference(llava, manifest.pruning)
    processor, geometry = load_processor(checkpoint.folder, checkpoint.spec), TileGeometry.of(checkpoint.spec)
    prompts = [
        [prompt_of(questions, processor, geometry) for questions in case.turns] for case, _ in recorded
    ]

    def keep_for(prompt: PromptBatch) -> int:
        return _keep_for(manifest, (prompt.input_ids == model.image_token_id).sum(dim=1))

    def glances(stage: str) -> list[Glance]:
        found = []
        for number, ((case, _), [first, *_]) in enumerate(zip(recorded, prompts, strict=True)):
            progress(Progress(stage, number / len(recorded), case.name))
            keep = case.keep or keep_for(first)
            found.append(glance(reference, first, keep, max_new_tokens, model.eos_token_ids))
        return found

    quantized = Quantized()
    if manifest.quantization is not None:
        before = glances("Run PyTorch before quantization")
        progress(Progress("Dequantize", 0.0))
        quantized = quantize_in_place(llava, quantized_file(bundle), manifest.quantization, manifest.dtype)
        quantized = quantized.compared(manifest.quantization, before, glances("Run PyTorch, quantized"))

    follower = Follower(reference, subject.forms, subject.torch_dtype, limit, keep_for, model.eos_token_ids)
    inputs = InputChecks(
        subject.bundle,
        BundleReader(subject.bundle, subject.preprocess),
        ProcessorReader(subject.bundle.processor_path, model),
    )
    scale = float(llava.model.language_model.layers[0].self_attn.scaling)
    checks = [*quantized.checks]
    for form in subject.forms:
        checks += check_structure(form, manifest.pruning, model, scale)
    for number, ((case, turns), made) in enumerate(zip(recorded, prompts, strict=True)):
        progress(Progress("Compare with PyTorch", number / len(recorded), case.name))
        checks += inputs.of(case, turns, made)
        checks += follower.follow(turns, made)
    return checks, quantized.error
