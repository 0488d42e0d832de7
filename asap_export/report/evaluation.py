"""An evaluation's results as tables: Markdown for a document, the same for a terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from asap_export.report.sheets import Sheet, sheet_markdown, sheet_table

__all__ = ["evaluation_markdown", "evaluation_tables"]

Facts = dict[str, Any]

_BASELINES = ("fastv", "random")


def evaluation_markdown(facts: Facts) -> str:
    """``results_of`` as a document."""
    sheets = [sheet_markdown(sheet, 2) for sheet in _sheets(facts)]
    return "\n\n".join([f"# {_title(facts)}", *sheets, *_remarks(facts)]) + "\n"


def evaluation_tables(facts: Facts) -> Group:
    """``results_of`` for a terminal."""
    remarks = [Text(remark, style="dim") for remark in _remarks(facts)]
    tables = [sheet_table(sheet) for sheet in _sheets(facts)]
    return Group(Text(_title(facts), style="bold"), *tables, Text(""), *remarks)


def _title(facts: Facts) -> str:
    settings = facts["settings"]
    return (
        f"{settings['subject']} on {settings['dataset']}: {facts['questions']:,} questions, "
        f"{facts['images']:,} images"
    )


def _sheets(facts: Facts) -> Iterator[Sheet]:
    yield _accuracy(facts)
    if any(run["kinds"] for run in facts["runs"]):
        yield _kinds(facts)
    if compared := _compared(facts):
        yield _comparisons(facts, compared)


def _accuracy(facts: Facts) -> Sheet:
    both = facts["settings"]["runtime"] == "both"
    columns = ["method", "budget", "kept tokens", "layer average", "FLOPs", "accuracy", "retention"]
    rows = []
    for run in facts["runs"]:
        average = f"{run['layer_average']:.1f} ({run['layer_average_ratio']:.1%})"
        kept = f"{run['kept_visual_tokens']:.1f} of {run['visual_tokens']:.1f}"
        cells = [run["method"], run["budget"] or "all", kept, average, f"{run['flops_ratio']:.1%}"]
        cells.append(_part(run["accuracy"], run["accuracy_interval"]))
        cells.append(_part(run["retention"], run["retention_interval"]))
        rows.append([*cells[:2], run["runtime"], *cells[2:], _others(facts, run)] if both else cells)
    if both:
        columns = [*columns[:2], "runtime", *columns[2:], "other answers"]
    return Sheet("Accuracy", columns, rows, columns[: 3 if both else 2])


def _others(facts: Facts, run: Facts) -> str:
    """How many questions ONNX Runtime answers differently from PyTorch."""
    label = run["method"] if run["budget"] is None else f"{run['method']} {run['budget']}"
    if run["runtime"] != "ort":
        return ""
    return str(sum(difference["run"] == label for difference in facts["differences"]))


def _kinds(facts: Facts) -> Sheet:
    names = list(dict.fromkeys(kind for run in facts["runs"] for kind in run["kinds"]))
    sizes = {kind: of["questions"] for run in facts["runs"] for kind, of in run["kinds"].items()}
    columns = ["method", "budget", *(f"{name or 'other'} ({sizes[name]})" for name in names)]
    rows = [
        [
            _method(facts, run),
            run["budget"] or "all",
            *(f"{run['kinds'][name]['accuracy']:.1%}" for name in names),
        ]
        for run in facts["runs"]
    ]
    return Sheet("Accuracy by question type (questions)", columns, rows, columns[:2])


def _method(facts: Facts, run: Facts) -> str:
    both = facts["settings"]["runtime"] == "both"
    return f"{run['method']} ({run['runtime']})" if both else str(run["method"])


def _compared(facts: Facts) -> list[Facts]:
    """The comparisons with a baseline, the other method first; all of them where there is no baseline."""
    pairs = facts["comparisons"]
    with_baseline = [pair for pair in pairs if _is_baseline(pair["method"]) != _is_baseline(pair["other"])]
    return [_turned(pair) if _is_baseline(pair["method"]) else pair for pair in with_baseline] or pairs


def _is_baseline(method: str) -> bool:
    return method.partition(":")[0] in _BASELINES


def _turned(pair: Facts) -> Facts:
    return pair | {
        "method": pair["other"],
        "other": pair["method"],
        "wins": pair["losses"],
        "losses": pair["wins"],
    }


def _comparisons(facts: Facts, pairs: list[Facts]) -> Sheet:
    columns = ["method", "against", "budget", "only the first is right", "only the second", "p"]
    rows = [
        [
            _method(facts, pair),
            pair["other"],
            pair["budget"],
            str(pair["wins"]),
            str(pair["losses"]),
            f"{pair['p_value']:.2g}",
        ]
        for pair in pairs
    ]
    return Sheet("Question by question", columns, rows, columns[:3])


def _part(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "–"
    between = "" if interval is None else f" [{interval[0]:.1%}, {interval[1]:.1%}]"
    return f"{value:.1%}{between}"


def _remarks(facts: Facts) -> list[str]:
    remarks = [
        "In brackets 95 % intervals: Wilson's for accuracy, a paired bootstrap by image for retention, which is "
        "accuracy relative to dense. p is McNemar's exact test."
    ]
    settings = facts["settings"]
    if settings["device"] != "cpu":
        remarks.append(f"PyTorch answered in {settings['dtype']} on {settings['device']}.")
    if settings["runtime"] == "both":
        count = len(facts["differences"])
        remarks.append(
            f"Answers that differ between PyTorch and ONNX Runtime: {count}; results.json lists them."
        )
    return [*remarks, *(f"Note: {note}." for note in facts["notes"])]
