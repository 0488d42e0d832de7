"""From records to numbers: accuracy, retention, cost, and which method is ahead of which."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from asap_export.evaluation.journal import Record
from asap_export.evaluation.matching import is_correct
from asap_export.evaluation.runs import Run
from asap_export.evaluation.statistics import mcnemar, retention_intervals, wilson
from asap_export.pruning.flops import DecoderShape, layer_average, paper_flops

__all__ = ["Facts", "results_of"]

Facts = dict[str, Any]
_Right = dict[Run, npt.NDArray[np.bool_]]  # per question


@dataclass(frozen=True)
class _Answered:
    """Records of all questions, and the picture [questions] that each belongs to, from 0."""

    records: Sequence[Record]
    picture: npt.NDArray[np.int64]
    right: _Right


def results_of(
    settings: Mapping[str, Any],
    pictures: Sequence[Sequence[Record]],
    runs: Sequence[Run],
    shape: DecoderShape,
) -> Facts:
    """All that an evaluation found, as JSON values; the same records give the same results to the byte."""
    records = [record for picture in pictures for record in picture]
    number = np.repeat(np.arange(len(pictures)), [len(picture) for picture in pictures])
    right = {
        run: np.array([is_correct(_said(record, run), record["answers"]) for record in records])
        for run in runs
    }
    answered = _Answered(records, number, right)
    retained = _retention(answered)
    return {
        "settings": dict(settings),
        "questions": len(records),
        "images": len(pictures),
        "runs": [_row(run, answered, shape) | retained[run] for run in runs],
        "comparisons": list(_comparisons(answered)),
        "differences": list(_differences(answered)),
        "notes": _notes(settings, runs),
    }


def _said(record: Record, run: Run) -> str:
    said: str = record["found"][run.runtime][run.label]
    return said


def _row(run: Run, answered: _Answered, shape: DecoderShape) -> Facts:
    right = answered.right[run]
    correct, count = int(right.sum()), len(right)
    visual = [record["visual_tokens"] for record in answered.records]
    kept = [run.keep_for(tokens, shape.layers) for tokens in visual]
    after = run.pruning.prune_after
    averages = [layer_average(*pair, shape.layers, after) for pair in zip(visual, kept, strict=True)]
    cost = sum(paper_flops(shape, *pair, after) for pair in zip(visual, kept, strict=True))
    dense = sum(paper_flops(shape, tokens, tokens, after) for tokens in visual)
    return {
        "method": run.method.label,
        "budget": run.budget.label if run.budget else None,
        "runtime": run.runtime,
        "questions": count,
        "correct": correct,
        "accuracy": correct / count,
        "accuracy_interval": wilson(correct, count),
        "kinds": _kinds(answered, right),
        "visual_tokens": float(np.mean(visual)),
        "kept_visual_tokens": float(np.mean(kept)),
        "layer_average": float(np.mean(averages)),
        "layer_average_ratio": sum(averages) / sum(visual),
        "flops_ratio": cost / dense,
    }


def _kinds(answered: _Answered, right: npt.NDArray[np.bool_]) -> Facts:
    """Accuracy by question type, in the order in which types occur; nothing where the data names none."""
    kinds = [record["kind"] for record in answered.records]
    facts: Facts = {}
    for kind in dict.fromkeys(kinds):
        of_kind = right[[each == kind for each in kinds]]
        correct, count = int(of_kind.sum()), len(of_kind)
        facts[kind] = {"questions": count, "correct": correct, "accuracy": correct / count}
    return facts if any(kinds) else {}


def _retention(answered: _Answered) -> dict[Run, Facts]:
    """Accuracy relative to dense in the same runtime, or in the only one that ran dense."""
    nothing: Facts = {"retention": None, "retention_interval": None}
    found = dict.fromkeys(answered.right, nothing)
    dense = {run.runtime: run for run in answered.right if run.budget is None}
    for runtime, base in dense.items():
        others = {
            run.label: run
            for run in answered.right
            if run.runtime == runtime or (run.runtime not in dense and runtime == next(iter(dense)))
        }
        totals = {label: _by_picture(answered, run) for label, run in others.items()}
        reference = _by_picture(answered, base)
        intervals = retention_intervals(reference, totals)
        for label, run in others.items():
            if sum(reference):
                retention = sum(totals[label]) / sum(reference)
                found[run] = {"retention": retention, "retention_interval": intervals[label]}
    return found


def _by_picture(answered: _Answered, run: Run) -> list[int]:
    """Right answers per picture."""
    counts = np.bincount(answered.picture, weights=answered.right[run])
    return [int(count) for count in counts]


def _comparisons(answered: _Answered) -> Iterator[Facts]:
    """Every pair of methods under the same budget and in the same runtime, question by question.

    ``random``, which only PyTorch runs, is compared with methods in either runtime.
    """
    for one, other in combinations(answered.right, 2):
        if one.budget is None or one.budget != other.budget or one.method == other.method:
            continue
        if one.runtime != other.runtime and "random" not in (one.pruning.method, other.pruning.method):
            continue
        wins = int((answered.right[one] & ~answered.right[other]).sum())
        losses = int((answered.right[other] & ~answered.right[one]).sum())
        yield {
            "budget": one.budget.label,
            "runtime": next((run.runtime for run in (one, other) if run.pruning.method != "random"), "torch"),
            "method": one.method.label,
            "other": other.method.label,
            "wins": wins,
            "losses": losses,
            "p_value": mcnemar(wins, losses),
        }


def _differences(answered: _Answered) -> Iterator[Facts]:
    """Every question that the two runtimes answer differently under the same method and budget."""
    labels = dict.fromkeys(run.label for run in answered.right)
    for record in answered.records:
        for label in labels:
            said = {name: answers[label] for name, answers in record["found"].items() if label in answers}
            if len(set(said.values())) > 1:
                about = {name: record[name] for name in ("id", "image", "question", "answers")}
                yield {**about, "run": label, **said}


def _notes(settings: Mapping[str, Any], runs: Sequence[Run]) -> list[str]:
    notes = []
    if all(run.budget is not None for run in runs):
        notes.append("dense is not among the methods, so there is no retention")
    ran = {run.runtime for run in runs if run.pruning.method == "random"}
    if ran and settings["runtime"] != "torch":
        notes.append("random has no graph, so PyTorch alone answered with it")
    return notes
