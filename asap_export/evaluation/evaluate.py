"""The evaluation itself: picture by picture, every method under every budget in every runtime."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from asap_export.bundle import tool_versions
from asap_export.bundle.writer import write_durably
from asap_export.errors import UserError
from asap_export.evaluation.budgets import NamedBudget, parse_budgets
from asap_export.evaluation.dataset import SYNTHETIC, Dataset, Picture, Split, open_dataset
from asap_export.evaluation.device import chosen_device, device_name
from asap_export.evaluation.evaluated import EvaluatedModel, open_evaluated
from asap_export.evaluation.journal import Journal, Record
from asap_export.evaluation.methods import NamedMethod, parse_methods
from asap_export.evaluation.reading import ReadPicture, Seen, read_picture
from asap_export.evaluation.results import Facts, results_of
from asap_export.evaluation.runs import Run, Runtime, runs_of
from asap_export.progress import Progress, ProgressCallback, no_progress
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.flops import DecoderShape
from asap_export.report.evaluation import evaluation_markdown
from asap_export.runtime.prompt import PromptReader
from asap_export.spec import Dtype

__all__ = ["EvaluationRequest", "Results", "evaluate"]

_METHODS = "dense,asap,fastv,random"
_RUNTIMES: dict[str, tuple[Runtime, ...]] = {"torch": ("torch",), "ort": ("ort",), "both": ("torch", "ort")}
_STAGE = "Answer"


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate; None stands for the default.

    ``subject`` is a bundle or a checkpoint (folder or hub id), None the built-in demo; ``methods`` and ``budgets``
    are lists as ``parse_methods`` and ``parse_budgets`` take them; by default a bundle is evaluated with its own
    method in ONNX Runtime, and a checkpoint with dense, ASAP, FastV and random in PyTorch. ``instruction`` is put
    behind every question. ``device`` is PyTorch's, "cpu", "cuda" or "cuda:N"; ``dtype`` that of a checkpoint's
    arithmetic, by default float32 on the CPU and its own on a GPU.
    """

    subject: str | Path | None = None
    dataset: str | Path | Dataset = SYNTHETIC
    split: Split | None = None
    limit: int | None = None
    methods: str | None = None
    budgets: str = "33.3%,22.2%"
    runtime: Literal["torch", "ort", "both"] | None = None
    output: Path | None = None
    overwrite: bool = False
    instruction: str = ""
    max_new_tokens: int = 16
    model: str | None = None  # where a bundle's checkpoint is now
    revision: str | None = None
    dtype: Dtype | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Results:
    """What results.json in ``folder`` says."""

    folder: Path
    facts: Facts


class _Answers(Protocol):
    """One runtime: it looks at a picture once, and answers all questions as often as there are runs."""

    def look(self, read: ReadPicture) -> Seen: ...

    def answer(self, seen: Seen, pruning: PruningConfig, keep: int) -> list[list[int]]: ...


def evaluate(request: EvaluationRequest, progress: ProgressCallback = no_progress) -> Results:
    """Answer every question with every method under every budget, and count.

    Records go to records.jsonl in the output folder, picture by picture; a later call with the same request goes
    on behind the last. The results are in results.json and results.md, and the same however often the work was
    interrupted.

    Raises UserError before the work starts wherever the request cannot be met.
    """
    if request.max_new_tokens < 1:
        raise UserError(f"expected --max-new-tokens of at least 1, found {request.max_new_tokens}; raise it")
    methods = parse_methods(request.methods) if request.methods is not None else None
    budgets = parse_budgets(request.budgets)
    dataset = request.dataset
    if not isinstance(dataset, Dataset):
        dataset = open_dataset(dataset, request.split, request.limit)
    device = chosen_device(request.device)
    subject = open_evaluated(
        request.subject,
        model=request.model,
        revision=request.revision,
        dtype=request.dtype,
        device=device,
        progress=progress,
    )
    if methods is None:
        methods = (subject.own_method(),) if subject.bundle else parse_methods(_METHODS)
    runtime = request.runtime or ("ort" if subject.bundle else "torch")
    runs = runs_of(methods, budgets, _RUNTIMES[runtime])
    _check(runs, subject, request.max_new_tokens)
    settings = _settings(request, subject, dataset, methods, budgets, runtime)
    folder = Path(request.output) if request.output else Path(f"{Path(subject.name).resolve().name}.eval")
    with Journal(folder, settings, request.overwrite) as journal:
        if len(journal.pictures) < dataset.size:
            work = _Work(request, subject, runs, _open(request, subject, runs, folder))
            for number in range(len(journal.pictures), dataset.size):
                progress(Progress(_STAGE, number / dataset.size, f"image {number + 1} of {dataset.size}"))
                journal.append(work.records(number, dataset.picture(number)))
        facts = results_of(settings, journal.pictures, runs, DecoderShape.of(subject.spec))
    write_durably(folder / "results.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    write_durably(folder / "results.md", evaluation_markdown(facts))
    return Results(folder, facts)


def _check(runs: tuple[Run, ...], subject: EvaluatedModel, max_new_tokens: int) -> None:
    """Raise UserError where a run cannot be: layers, budgets, dtypes, memory, or a bundle's checkpoint that is
    missing."""
    spec = subject.spec
    for run in runs:
        if run.pruning.prunes and run.pruning.prune_after >= spec.layers:
            raise UserError(
                f"expected prune_after below the model's {spec.layers} layers, found {run.pruning.prune_after} "
                f"for {run.method.label}; lower it"
            )
        if run.budget is not None:
            run.budget.check(run.method.label, spec.max_visual_tokens, spec.layers, run.pruning.prune_after)
        if run.runtime == "ort" and subject.dtype == "bf16":
            raise UserError(
                "expected fp16 or fp32 for ONNX Runtime's CPU provider, found bf16; use --runtime torch, or "
                "another --dtype"
            )
    own = subject.bundle.manifest.pruning if subject.bundle else None
    if any(run.runtime == "torch" or run.pruning != own for run in runs):
        subject.checkpoint()
    if any(run.runtime == "torch" for run in runs):
        subject.rows(max_new_tokens)
    elif subject.device.type != "cpu":
        raise UserError(
            "expected --runtime torch or both with --device cuda, found ort, which answers on the CPU; "
            "change one of them"
        )


def _settings(
    request: EvaluationRequest,
    subject: EvaluatedModel,
    dataset: Dataset,
    methods: tuple[NamedMethod, ...],
    budgets: tuple[NamedBudget, ...],
    runtime: str,
) -> dict[str, Any]:
    """All that the results depend on: an evaluation that is continued must not mix two of it."""
    return {
        "subject": subject.name,
        "weights": subject.fingerprint,
        "dtype": subject.dtype,
        "dataset": dataset.name,
        "dataset_content": dataset.fingerprint,
        "images": dataset.size,
        "limit": request.limit,
        "methods": {method.label: asdict(method.pruning) for method in methods},
        "budgets": [budget.label for budget in budgets],
        "runtime": runtime,
        "device": device_name(subject.device),
        "instruction": request.instruction,
        "max_new_tokens": request.max_new_tokens,
        "tools": tool_versions(),
    }


def _open(
    request: EvaluationRequest, subject: EvaluatedModel, runs: tuple[Run, ...], folder: Path
) -> dict[Runtime, _Answers]:
    """The runtimes that some run needs, loaded."""
    answers: dict[Runtime, _Answers] = {}
    in_graphs = list(dict.fromkeys(run.method for run in runs if run.runtime == "ort"))
    if any(run.runtime == "torch" for run in runs):
        answers["torch"] = subject.torch_answers(request.max_new_tokens)
    if in_graphs:
        answers["ort"] = subject.ort_answers(in_graphs, folder / "bundles", request.max_new_tokens)
    return answers


class _Work:
    """Makes the records of one picture after the other."""

    def __init__(
        self,
        request: EvaluationRequest,
        subject: EvaluatedModel,
        runs: tuple[Run, ...],
        answers: Mapping[Runtime, _Answers],
    ) -> None:
        self._request, self._spec, self._runs, self._answers = request, subject.spec, runs, answers
        self._reader: PromptReader = subject.reader()

    def records(self, number: int, picture: Picture) -> list[Record]:
        """One record for each question."""
        request = self._request
        read = read_picture(self._reader, self._spec, picture, request.instruction, request.max_new_tokens)
        found = self._found(number, read)
        return [
            {
                "id": asked.id,
                "image": picture.name,
                "kind": asked.kind,
                "question": asked.text,
                "answers": list(asked.answers),
                "visual_tokens": read.visual_tokens,
                "found": {
                    runtime: {label: said[place] for label, said in of.items()}
                    for runtime, of in found.items()
                },
            }
            for place, asked in enumerate(picture.questions)
        ]

    def _found(self, number: int, read: ReadPicture) -> dict[str, dict[str, list[str]]]:
        """By runtime and run, the answers to all questions; what two runs share is run once."""
        seen = {runtime: answers.look(read) for runtime, answers in self._answers.items()}
        done: dict[tuple[Runtime, PruningConfig, int], list[str]] = {}
        found: dict[str, dict[str, list[str]]] = {runtime: {} for runtime in self._answers}
        for run in self._runs:
            keep = run.keep_for(read.visual_tokens, self._spec.layers)
            pruning = run.pruning
            if pruning.method == "random":  # by chance anew for every picture, and the same in every call
                pruning = replace(pruning, seed=pruning.seed * 1_000_003 + number)
            key = (run.runtime, pruning, keep)
            if key not in done:
                tokens = self._answers[run.runtime].answer(seen[run.runtime], pruning, keep)
                done[key] = [self._reader.text(row).strip() for row in tokens]
            found[run.runtime][run.label] = done[key]
        return found
