"""A bundle against the PyTorch reference of its checkpoint: inputs, operators, graphs, answers."""

import gc
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from asap_export.bundle import Bundle
from asap_export.bundle.writer import write_durably
from asap_export.checkpoint.checkpoint import Checkpoint
from asap_export.checkpoint.loading import load_model, load_processor
from asap_export.model.anyres import TileGeometry
from asap_export.model.reference import Prompt, Reference
from asap_export.parity.answer_checks import check_answers
from asap_export.parity.cases import Case, built_in_cases, few_cases, prompt_of
from asap_export.parity.graph_checks import GraphChecks
from asap_export.parity.input_checks import InputChecks
from asap_export.parity.memory import check_memory
from asap_export.parity.operator_checks import OperatorNodes
from asap_export.parity.quantization import (
    QuantizationError,
    Quantized,
    glance,
    quantize_in_place,
    quantized_file,
)
from asap_export.parity.recording import Recorded, Recorder
from asap_export.parity.source import check_source, open_source
from asap_export.parity.subject import Subject, check_layers, subject_of
from asap_export.parity.verdict import Check, Verdict, tolerance, worst
from asap_export.progress import Progress, ProgressCallback, no_progress
from asap_export.runtime.providers import Provider

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

    @property
    def verdict(self) -> Verdict:
        return worst(self.checks)

    def facts(self) -> dict[str, Any]:
        """For parity.json and the console's tables."""
        return {"verdict": self.verdict, **asdict(self)}


def verify(
    path: str | Path,
    *,
    model: str | None = None,
    revision: str | None = None,
    provider: Provider = "auto",
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
    bundle = Bundle.open(path, progress=progress)
    check_layers(bundle, layers, provider)
    checkpoint = open_source(bundle, model, revision, progress)
    check_memory(checkpoint, bundle.manifest, layers)
    bundle.check_weights(progress)
    check_source(bundle, checkpoint, progress)
    with subject_of(bundle, provider, layers) as subject:
        limit = tolerance(subject.dtype, subject.bundle.manifest.model.layers, subject.is_copy)
        cases = _cases(subject, layers is not None, images)
        recorded, quantized = _record(bundle, checkpoint, subject, cases, max_new_tokens, progress)
        gc.collect()  # PyTorch's model is full of cycles, and ONNX Runtime wants its memory
        checks = _compare(subject, recorded, limit, max_new_tokens, progress)
    report = Report(
        bundle=str(path),
        dtype=bundle.manifest.dtype,
        compared_dtype=subject.dtype,
        layers=subject.bundle.manifest.model.layers,
        all_layers=bundle.manifest.model.layers,
        provider=subject.provider,
        limit=limit,
        checks=(*quantized.checks, *checks),
        notes=subject.notes,
        quantization=quantized.error,
    )
    try:
        write_durably(bundle.parity_path, json.dumps(report.facts(), indent=1) + "\n")
    except OSError as error:  # a bundle that cannot be written to can be verified all the same
        unsaved = f"parity.json could not be written: {error.strerror}"
        return replace(report, notes=(*report.notes, unsaved))
    return report


def _cases(subject: Subject, few: bool, images: tuple[Path, ...]) -> list[Case]:
    if few:
        return few_cases(TileGeometry.of(subject.bundle.manifest.model), images)
    return built_in_cases(images, subject.bundle.manifest.limits if subject.provider == "tensorrt" else None)


def _record(
    bundle: Bundle,
    checkpoint: Checkpoint,
    subject: Subject,
    cases: list[Case],
    max_new_tokens: int,
    progress: ProgressCallback,
) -> tuple[list[Recorded], Quantized]:
    """What PyTorch makes of the cases with the bundle's weights; its model goes when this returns."""
    manifest = bundle.manifest
    progress(Progress("Run PyTorch", 0.0, "load the model"))
    # Rounded as the bundle's weights are, and then computed with in float32.
    llava = load_model(checkpoint, manifest.dtype, subject.bundle.manifest.model.layers).float()
    processor, geometry = load_processor(checkpoint.folder), TileGeometry.of(checkpoint.spec)

    def keep_for(prompt: Prompt) -> int:
        visual = (prompt.input_ids == manifest.model.image_token_id).sum(dim=1).tolist()
        depth = manifest.model.layers, manifest.pruning.prune_after
        return max(manifest.budget.keep_for(count, *depth) for count in visual)

    recorder = Recorder(
        Reference(llava, manifest.pruning),
        subject.torch_dtype,
        lambda questions, first: prompt_of(questions, processor, geometry, first),
        keep_for,
        manifest.model.eos_token_ids,
        max_new_tokens,
    )
    if manifest.quantization is None:
        return list(_each(recorder, cases, "Run PyTorch", progress)), Quantized()
    first_turns = [replace(case, turns=case.turns[:1]) for case in cases]
    stage = "Run PyTorch before quantization"
    before = [glance(recorded) for recorded in _each(recorder, first_turns, stage, progress)]
    progress(Progress("Dequantize", 0.0))
    quantized = quantize_in_place(llava, quantized_file(bundle), manifest.quantization, manifest.dtype)
    recorded = list(_each(recorder, cases, "Run PyTorch", progress))
    after = [glance(record) for record in recorded]
    return recorded, quantized.compared(manifest.quantization, before, after)


def _each(
    recorder: Recorder, cases: list[Case], stage: str, progress: ProgressCallback
) -> Iterator[Recorded]:
    for number, case in enumerate(cases):
        progress(Progress(stage, number / len(cases), case.name))
        yield recorder.record(case)


def _compare(
    subject: Subject,
    recorded: list[Recorded],
    limit: float,
    max_new_tokens: int,
    progress: ProgressCallback,
) -> list[Check]:
    """The bundle's inputs, operators, graphs and answers against what was recorded."""
    pruning = subject.bundle.manifest.pruning
    forms = [(form, GraphChecks(pruning, limit, form)) for form in subject.forms]
    graphs = forms[0][1]  # of the form that runs
    operators = OperatorNodes(subject.forms[-1].stored.model, pruning, subject.torch_dtype)
    progress(Progress("Compare", 0.0, "open the graphs"))
    model = subject.open()
    inputs = InputChecks(subject.bundle, model.reader)
    checks: list[Check] = []
    for number, record in enumerate(recorded):
        progress(Progress("Compare", number / (len(recorded) + 1), record.case.name))
        checks += inputs.of(record)
        found: list[Check] = []
        for turn in record.turns:
            found += graphs.before_the_decoder(turn, model.graphs.sessions)
            found += graphs.decoder(turn, model.graphs.sessions.decoder)
            step = turn.steps[0]
            if step.cut is not None and bool(step.visual.any()):
                found += operators.check(turn.name, step.cut)
        if record.answer is not None:
            ambiguous = worst(found) == "AMBIGUOUS"
            found.append(check_answers(record, model, max_new_tokens, limit, ambiguous))
        checks += found
    progress(Progress("Compare", len(recorded) / (len(recorded) + 1), "other forms and ambiguous choices"))
    del model  # its memory is wanted for the decoders that are looked into
    for form, others in forms[1:]:
        session = form.open(subject.provider)
        for record in recorded:
            checks += [check for turn in record.turns for check in others.decoder(turn, session)]
        del session
    return [*checks, *(check for _, settling in forms for check in settling.settle())]
