"""Results as tables: Markdown for a document, the same for a terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["evaluation_tables", "markdown"]

Facts = dict[str, Any]

_BASELINES = ("fastv", "random")


@dataclass(frozen=True)
class _Grid:
    """A table's title, column names and cells; the first ``words`` columns are words, the others numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int


def markdown(facts: Facts) -> str:
    """``results_of`` as a document."""
    parts = [f"# {_title(facts)}"]
    for grid in _grids(facts):
        lines = [grid.columns, ["---" if place < grid.words else "--:" for place in range(len(grid.columns))]]
        lines += [[cell.replace("|", "\\|") for cell in row] for row in grid.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"## {grid.title}\n\n{table}")
    return "\n\n".join([*parts, *_remarks(facts)]) + "\n"


def evaluation_tables(facts: Facts) -> Group:
    """``results_of`` for a terminal."""
    parts: list[RenderableType] = [Text(_title(facts), style="bold")]
    for grid in _grids(facts):
        table = Table(box=None, pad_edge=False)
        for place, name in enumerate(grid.columns):
            table.add_column(name, justify="left" if place < grid.words else "right")
        for row in grid.rows:
            table.add_row(*(Text(cell) for cell in row))
        parts += [Text(""), Text(grid.title, style="bold"), table]
    remarks = [Text(remark, style="dim") for remark in _remarks(facts)]
    return Group(*parts, Text(""), *remarks)


def _title(facts: Facts) -> str:
    settings = facts["settings"]
    return (
        f"{settings['subject']} on {settings['dataset']}: {facts['questions']:,} questions, "
        f"{facts['images']:,} images"
    )


def _grids(facts: Facts) -> Iterator[_Grid]:
    yield _accuracy(facts)
    if any(run["kinds"] for run in facts["runs"]):
        yield _kinds(facts)
    if compared := _compared(facts):
        yield _comparisons(facts, compared)


def _accuracy(facts: Facts) -> _Grid:
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
    return _Grid("Accuracy", columns, rows, 3 if both else 2)


def _others(facts: Facts, run: Facts) -> str:
    """How many questions ONNX Runtime answers differently from PyTorch."""
    label = run["method"] if run["budget"] is None else f"{run['method']} {run['budget']}"
    if run["runtime"] != "ort":
        return ""
    return str(sum(difference["run"] == label for difference in facts["differences"]))


def _kinds(facts: Facts) -> _Grid:
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
    return _Grid("Accuracy by question type (questions)", columns, rows, 2)


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


def _comparisons(facts: Facts, pairs: list[Facts]) -> _Grid:
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
    return _Grid("Question by question", columns, rows, 3)


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
