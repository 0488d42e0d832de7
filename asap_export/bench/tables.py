"""A run's facts as tables: for a terminal, and as markdown for a page."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from asap_export.bench.records import PARTS, PROFILE_PARTS

__all__ = ["bench_tables", "markdown"]

Facts = dict[str, Any]
_WORDS = ("dtype", "dense", "bundle", "most time in", "verdict", "what", "why")  # columns without numbers


class _Sheet(NamedTuple):
    """A title, the columns' names, rows of cells, and what to know of them. The first column is words."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def bench_tables(facts: Facts) -> RenderableType:
    """For a terminal."""
    parts: list[RenderableType] = [Text(_headline(facts), style="bold")]
    for sheet in _sheets(facts):
        table = Table(*sheet.columns[:1], box=None, pad_edge=False)
        for column in sheet.columns[1:]:
            table.add_column(column, justify="left" if column in _WORDS else "right")
        for row in sheet.rows:
            table.add_row(*map(Text, row))
        parts += [Text(""), Text(sheet.title, style="bold"), table]
        parts += [Text(sheet.note, style="dim")] if sheet.note else []
    return Group(*parts)


def markdown(facts: Facts) -> str:
    """For a page."""
    lines = [_headline(facts), ""]
    for sheet in _sheets(facts):
        words = {sheet.columns[0], *_WORDS}
        lines += [f"### {sheet.title}", "", "| " + " | ".join(sheet.columns) + " |"]
        lines.append("|" + "".join("---|" if name in words else "--:|" for name in sheet.columns))
        lines += ["| " + " | ".join(row) + " |" for row in sheet.rows]
        lines += ["", sheet.note, ""] if sheet.note else [""]
    return "\n".join(lines)


def _headline(facts: Facts) -> str:
    workload, model, settings = facts["workload"], facts["model"], facts["settings"]
    like = f"like {model['like']} at scale {model['scale']:g}, " if model["like"] else ""
    note = f" {facts['note'][0].upper()}{facts['note'][1:]}." if facts["note"] else ""
    return (
        f"{like}{model['layers']} layers of width {model['hidden_size']:,}; "
        f"{workload['visual_tokens']:,} visual and {workload['text_tokens']:,} text tokens, "
        f"{workload['keep']:,} visual tokens after a cut; {settings['rounds']} rounds after "
        f"{settings['warmup']} of warm-up, {settings['threads']} threads, {facts['date'][:10]}.{note}"
    )


def _sheets(facts: Facts) -> list[_Sheet]:
    makers: Sequence[Callable[[Facts], _Sheet]] = (
        _first_token, _decoding, _memory, _comparisons, _profile, _curve, _targets, _notes, _skipped,
    )  # fmt: skip
    return [sheet for make in makers if (sheet := make(facts)).rows]


def _per_contender(facts: Facts, cells: Callable[[Facts], Sequence[str]]) -> list[tuple[str, ...]]:
    """A row for each contender that was measured: name, dtype, and ``cells`` of it."""
    measured = (contender for contender in facts["contenders"] if contender["samples"]["prefill"])
    return [(contender["name"], contender["dtype"], *cells(contender)) for contender in measured]


def _first_token(facts: Facts) -> _Sheet:
    def cells(contender: Facts) -> tuple[str, ...]:
        seconds = contender["seconds"]
        prefill = seconds["prefill"]
        return (
            *(_seconds(seconds[part]["median"]) for part in PARTS),
            f"{_seconds(prefill['min'])}–{_seconds(prefill['max'])}",
            _seconds(seconds["first_token"]["median"]),
            f"{contender['flops_per_second'] / 1e9:,.0f}",
        )

    columns = ("first token, s", "dtype", *PARTS, "min–max", "sum", "GFLOP/s")
    note = "Medians. GFLOP/s are those of the prefill, two operations for each multiply-add of the decoder."
    return _Sheet("Time to first token", columns, _per_contender(facts, cells), note)


def _decoding(facts: Facts) -> _Sheet:
    lengths = [str(length) for length in facts["settings"]["cache_lengths"]]

    def cells(contender: Facts) -> tuple[str, ...]:
        found = contender["decode_seconds"]
        prompt = found["prompt"]
        behind = f"{1e3 * prompt['median']:.1f} ({prompt['cache_length']:,})" if prompt else "–"
        medians = (found.get(length) for length in lengths)
        return behind, *(f"{1e3 * cell['median']:.1f}" if cell else "–" for cell in medians)

    columns = ("decode, ms per token", "dtype", "prompt", *(f"{int(length):,}" for length in lengths))
    note = "By tokens in the cache; behind the prompt, what its prefill leaves."
    return _Sheet("Decode", columns, _per_contender(facts, cells), note)


def _memory(facts: Facts) -> _Sheet:
    def cells(contender: Facts) -> tuple[str, ...]:
        memory = contender["memory"]
        above, highest = memory["prefill_above_weights"], memory["prefill_peak"]
        return (
            _megabytes(memory["weights"]),
            _megabytes(above and above["median"]),
            _megabytes(highest and highest["median"]),
            _megabytes(contender["kv_bytes"]),
            _tera(contender["multiply_adds"]),
        )

    columns = (
        "memory, MB", "dtype", "at rest", "prefill above it", "prefill peak", "KV cache", "tera multiply-adds",
    )  # fmt: skip
    on_device = facts["settings"].get("provider", "cpu") != "cpu"  # older files do not say
    note = "Memory of the CUDA device." if on_device else "Resident memory of the contender's own process."
    return _Sheet("Memory and multiply-adds", columns, _per_contender(facts, cells), note)


def _comparisons(facts: Facts) -> _Sheet:
    rows = [
        (
            row["pruned"],
            row["dense"],
            f"{row['flops_ratio']:.2f}",
            f"{row['speed_up']['ratio']:.2f} ({row['speed_up']['min']:.2f}–{row['speed_up']['max']:.2f})",
            f"{row['of_flops_ratio']:.3f}",
            f"{row['first_token_speed_up']['ratio']:.2f}",
            "–" if row["memory_ratio"] is None else f"{row['memory_ratio']:.2f}",
            f"{row['kv_ratio']:.2f}",
        )
        for row in facts["comparisons"]
    ]
    columns = ("pruned", "dense", "FLOPs", "prefill", "of FLOPs", "first token", "memory", "KV")
    note = (
        "Times fewer FLOPs, times as fast, the second over the first; memory above the weights and KV cache "
        "as parts."
    )
    return _Sheet("Pruned beside dense", columns, rows, note)


def _profile(facts: Facts) -> _Sheet:
    rows = []
    for name, profile in (facts["profiles"] or {}).items():
        for run in ("prefill", "decode"):
            found = profile.get(run)
            if found:
                shares = [f"{found['shares'][part]:.2%}" for part in PROFILE_PARTS]
                top = ", ".join(list(found["operators"])[:4])
                rows.append((f"{name}, {run}", f"{1e3 * found['seconds']:,.1f}", *shares, top))
    columns = ("ONNX Runtime's profile", "ms", "ASAP", "attention", "matrix products", "rest", "most time in")
    note = "A node in a loop counts itself, the loop what is left; profiling itself slows the run down."
    return _Sheet("Where the decoder's time goes", columns, rows, note)


def _curve(facts: Facts) -> _Sheet:
    rows = [
        (
            f"{row['visual_tokens']:,}",
            str(row["images"]),
            row["name"],
            f"{row['keep']:,}",
            _seconds(row["prefill_seconds"]),
            _megabytes(row["above_weights"]),
            _tera(row["multiply_adds"]),
        )
        for row in sorted(facts["curve"], key=lambda row: (row["visual_tokens"], row["prunes"]))
    ]
    columns = (
        "visual tokens", "images", "bundle", "kept", "prefill, s", "above weights, MB", "tera multiply-adds",
    )  # fmt: skip
    return _Sheet("Cost against visual tokens", columns, rows, "One prefill each, after a tiny one.")


def _targets(facts: Facts) -> _Sheet:
    rows = []
    for row in facts["targets"]:
        sign = "≥" if row["at_least"] else "≤"
        share = row["bound"] < 0.5 and row["target"].startswith("2")
        bound, value = (
            "–" if number is None else f"{number:.2%}" if share else f"{number:.3g}"
            for number in (row["bound"], row["value"])
        )
        verdict = row["verdict"] + (f": {row['reason']}" if row["reason"] else "")
        rows.append((f"{row['target']} {row['promise']}", f"{sign} {bound}", value, verdict))
    return _Sheet("Targets", ("target", "wanted", "measured", "verdict"), rows)


def _notes(facts: Facts) -> _Sheet:
    rows = [(contender["name"], contender["note"]) for contender in facts["contenders"] if contender["note"]]
    return _Sheet("To know", ("contender", "what"), rows)


def _skipped(facts: Facts) -> _Sheet:
    rows = [(row["name"], row["reason"]) for row in facts["skipped"]]
    return _Sheet("Left out", ("contender", "why"), rows)


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _megabytes(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1e6:,.0f}" if value >= 1e7 else f"{value / 1e6:.1f}"


def _tera(value: float) -> str:
    return f"{value / 1e12:.3f}" if value >= 1e10 else f"{value / 1e12:.3g}"
