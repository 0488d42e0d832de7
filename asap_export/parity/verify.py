"""A bundle against the PyTorch reference of its checkpoint: operators, graphs, answers."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from asap_export.bundle import Bundle
from asap_export.bundle.hashing import sha256_of_each
from asap_export.bundle.writer import write_durably
from asap_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from asap_export.checkpoint.loading import load_model, load_processor
from asap_export.errors import UserError
from asap_export.graph.float32 import write_float32_copy
from asap_export.graph.trace import GRAPHS
from asap_export.model.anyres import TileGeometry
from asap_export.model.reference import Context, Prompt, Reference
from asap_export.parity.answer_checks import check_answers
from asap_export.parity.cases import Case, built_in_cases, prompt_of
from asap_export.parity.graph_checks import GraphChecks
from asap_export.parity.operator_checks import OperatorNodes
from asap_export.parity.recording import Recording
from asap_export.parity.verdict import Check, Verdict, tolerance, worst
from asap_export.progress import Progress, ProgressCallback, no_progress
from asap_export.runtime.model import Model
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.providers import Provider, choose_provider, open_sessions
from asap_export.runtime.session import Sessions

__all__ = ["Report", "verify"]

_DECODE_STEPS = 2  # after each prefill, fed with the reference's own tokens


@dataclass(frozen=True)
class Report:
    """What was compared and what came of it. ``notes`` say what was checked in another way than asked."""

    bundle: str
    dtype: str
    compared_dtype: str
    provider: str
    limit: float
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

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
    max_new_tokens: int = 16,
    progress: ProgressCallback = no_progress,
) -> Report:
    """Compare a bundle with PyTorch on the checkpoint it was made from (``model``, where that has moved).

    ``revision`` of a hub id is by default the commit that the bundle was made from.
    The report is also left in the bundle, as parity.json.

    Raises UserError where the bundle is damaged, the checkpoint is not the one it was made from, or the
    provider is missing.
    """
    bundle = Bundle.open(path, hash_weights=True, progress=progress)
    checkpoint = _checkpoint(bundle, model, revision, progress)
    with _model_under_test(bundle, provider, progress) as (tested, decoder, notes):
        dtype = tested.graphs.dtype
        progress(Progress("Verify", 0.0, "load the reference"))
        llava = load_model(checkpoint, bundle.manifest.dtype)
        is_copy = dtype != bundle.manifest.dtype
        if is_copy:
            llava = llava.float()
        limit = tolerance(dtype, bundle.manifest.model.layers, is_copy)
        run = _Run(bundle, checkpoint, tested, decoder, Reference(llava, bundle.manifest.pruning), limit)
        limits = bundle.manifest.limits if tested.provider == "tensorrt" else None
        cases = built_in_cases(images, limits)
        checks: list[Check] = []
        for number, case in enumerate(cases):
            progress(Progress("Verify", number / len(cases), case.name))
            checks += run.check(case, max_new_tokens)
        progress(Progress("Verify", 1.0))
        report = Report(
            str(path), bundle.manifest.dtype, dtype, tested.provider, limit, tuple(checks), tuple(notes)
        )
    try:
        write_durably(bundle.parity_path, json.dumps(report.facts(), indent=1) + "\n")
    except OSError as error:  # a bundle that cannot be written to can be verified all the same
        unsaved = f"parity.json could not be written: {error.strerror}"
        return replace(report, notes=(*report.notes, unsaved))
    return report


def _checkpoint(
    bundle: Bundle, model: str | None, revision: str | None, progress: ProgressCallback
) -> Checkpoint:
    """The checkpoint that the manifest names, if its files are still those the bundle was made from."""
    source = bundle.manifest.source
    name = model or (None if source.id == "demo" else source.id)
    if revision is None and name == source.id and not Path(source.id).exists():
        revision = source.revision
    try:
        checkpoint = open_checkpoint(name, revision, progress)
    except UserError as error:
        if model is not None:
            raise
        raise UserError(
            f"{error}; the bundle was made from {source.id}: give its place with --model"
        ) from error
    here = {name: checkpoint.folder / name for name in source.files}
    missing = [name for name, file in here.items() if not file.is_file()]
    digests = {} if missing else sha256_of_each(here, "Hash checkpoint", progress)
    other = missing or [name for name, digest in digests.items() if digest != source.files[name]]
    if other:
        raise UserError(
            f"expected the checkpoint that the bundle was made from in {checkpoint.folder}, found another "
            f"{other[0]}; give the right one with --model, or export again"
        )
    return checkpoint


@contextmanager
def _model_under_test(
    bundle: Bundle, provider: Provider, progress: ProgressCallback
) -> Iterator[tuple[Model, Path, list[str]]]:
    """The bundle's own graphs, or, where bfloat16 meets a CPU, their float32 copies; and the decoder's file."""
    on_cpu = provider == "cpu" or (provider == "auto" and not torch.cuda.is_available())
    if bundle.manifest.dtype != "bf16" or not on_cpu:
        chosen = choose_provider(bundle, provider)
        yield Model(bundle, open_sessions(bundle, chosen), chosen), bundle.graph_path("decoder"), []
        return
    with tempfile.TemporaryDirectory(prefix="asap-export-") as name:
        progress(Progress("Verify", 0.0, "widen the graphs to float32"))
        copies = [write_float32_copy(bundle.graph_path(graph), Path(name)) for graph in GRAPHS]  # type: ignore[arg-type]
        sessions = Sessions(*(OnnxRuntimeSession(copy) for copy in copies))
        note = (
            "ONNX Runtime's CPU provider cannot run bf16: what was checked is a float32 copy of the same graphs "
            "with the same bf16 weights, against a float32 reference with these weights"
        )
        yield Model(bundle, sessions, "cpu", dtype="fp32"), copies[-1], [note]


class _Run:
    """Everything that the cases of one verification share."""

    def __init__(
        self,
        bundle: Bundle,
        checkpoint: Checkpoint,
        tested: Model,
        decoder: Path,
        reference: Reference,
        limit: float,
    ) -> None:
        self.bundle, self.tested, self.reference, self.limit = bundle, tested, reference, limit
        self.recording = Recording(reference)
        self.graphs = GraphChecks(
            bundle.manifest.pruning, decoder, tested.graphs.sessions, self.recording, limit
        )
        self.operators = OperatorNodes(decoder, bundle.manifest.pruning)
        self.processor = load_processor(checkpoint.folder)
        self.geometry = TileGeometry.of(checkpoint.spec)

    def check(self, case: Case, max_new_tokens: int) -> list[Check]:
        """All comparisons of one case."""
        checks: list[Check] = []
        context: Context | None = None
        for number, questions in enumerate(case.turns):
            prompt = prompt_of(questions, self.processor, self.geometry, first=number == 0)
            keep = case.keep or self._keep(prompt)
            name = case.name if number == 0 else f"{case.name}, turn {number + 1}"
            found, context = self._check_turn(name, prompt, keep, context)
            checks += found
        if len(case.turns) == 1:
            checks.append(self._check_answers(case, prompt, keep, worst(checks), max_new_tokens))
        return checks

    def _keep(self, prompt: Prompt) -> int:
        manifest = self.bundle.manifest
        visual = (prompt.input_ids == manifest.model.image_token_id).sum(dim=1).tolist()
        depth = manifest.model.layers, manifest.pruning.prune_after
        return max(manifest.budget.keep_for(count, *depth) for count in visual)

    def _check_turn(
        self, name: str, prompt: Prompt, keep: int, context: Context | None
    ) -> tuple[list[Check], Context]:
        features = self.recording.features(prompt)
        context = context or self.reference.empty_context(prompt.input_ids.shape[0])
        step = self.recording.prefill(prompt, features, keep, context)
        checks = self.graphs.vision(name, prompt, features)
        checks.append(self.graphs.embedding(name, prompt, features, step.embeds))
        checks += self.graphs.decoder(name, step)
        if step.cut is not None and bool(step.visual.any()):
            checks += self.operators.check(name, step.cut)
        for number, later in enumerate(self.recording.decode(step, _DECODE_STEPS), start=1):
            checks += self.graphs.decoder(f"{name}, decode step {number}", later)
            step = later
        return checks, step.after

    def _check_answers(
        self, case: Case, prompt: Prompt, keep: int, so_far: Verdict, max_new_tokens: int
    ) -> Check:
        spec = self.bundle.manifest.model
        expected = self.reference.generate(
            prompt,
            keep,
            max_new_tokens,
            eos_token_ids=spec.eos_token_ids,
            suppress_tokens=(spec.image_token_id,),  # the runtime never writes one
        )
        return check_answers(
            case, self.tested, expected, keep, max_new_tokens, self.limit, so_far == "AMBIGUOUS"
        )
