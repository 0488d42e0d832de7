"""A measurement's facts as tables: for a terminal, and as Markdown for a page."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from asap_export.report.sheets import Sheet, sheet_markdown, sheet_table

__all__ = ["bench_markdown", "bench_tables"]

Facts = dict[str, Any]

_PARTS = ("preprocess", "vision", "embed", "prefill")
_SHARES = ("asap", "attention", "matrix products", "rest")  # of a profiled run


def bench_tables(facts: Facts) -> Group:
    """For a terminal."""
    return Group(Text(_headline(facts), style="bold"), *map(sheet_table, _sheets(facts)))


def bench_markdown(facts: Facts) -> str:
    """For a page."""
    return "\n\n".join([_headline(facts), *(sheet_markdown(sheet, 3) for sheet in _sheets(facts))])


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


def _sheets(facts: Facts) -> list[Sheet]:
    makers: Sequence[Callable[[Facts], Sheet]] = (
        _first_token, _decoding, _memory, _comparisons, _rates, _profile, _curve, _notes, _skipped,
    )  # fmt: skip
    return [sheet for make in makers if (sheet := make(facts)).rows]


def _per_contender(facts: Facts, cells: Callable[[Facts], Sequence[str]]) -> list[tuple[str, ...]]:
    """A row for each contender that was measured: name, dtype, and ``cells`` of it."""
    measured = (contender for contender in facts["contenders"] if contender["samples"]["prefill"])
    return [(contender["name"], contender["dtype"], *cells(contender)) for contender in measured]


def _first_token(facts: Facts) -> Sheet:
    def cells(contender: Facts) -> tuple[str, ...]:
        seconds = contender["seconds"]
        prefill = seconds["prefill"]
        return (
            *(_seconds(seconds[part]["median"]) for part in _PARTS),
            f"{_seconds(prefill['min'])}–{_seconds(prefill['max'])}",
            _seconds(seconds["first_token"]["median"]),
            f"{contender['flops_per_second'] / 1e9:,.0f}",
            *([_part(contender["of_rate"])] if with_rates else []),
        )

    with_rates = bool(facts.get("rates"))  # older files have none
    columns: tuple[str, ...] = ("first token, s", "dtype", *_PARTS, "min–max", "sum", "GFLOP/s")
    note = "Medians. GFLOP/s are those of the prefill, two operations for each multiply-add of the decoder."
    if with_rates:
        columns += ("of the machine's",)
        note += " The last column is their part of a large matrix product's, in what the row computes in."
    return Sheet("Time to first token", columns, _per_contender(facts, cells), ["dtype"], note)


def _decoding(facts: Facts) -> Sheet:
    lengths = [str(length) for length in facts["settings"]["cache_lengths"]]

    def cells(contender: Facts) -> tuple[str, ...]:
        found = contender["decode_seconds"]
        prompt = found["prompt"]
        behind = f"{1e3 * prompt['median']:.1f} ({prompt['cache_length']:,})" if prompt else "–"
        medians = (found.get(length) for length in lengths)
        times = (f"{1e3 * cell['median']:.1f}" if cell else "–" for cell in medians)
        return behind, *times, *([_part(contender["of_bandwidth"])] if with_rates else [])

    with_rates = bool(facts.get("rates"))
    columns = ("decode, ms per token", "dtype", "prompt", *(f"{int(length):,}" for length in lengths))
    note = "By tokens in the cache; behind the prompt, what its prefill leaves."
    if with_rates:
        columns += ("of memory's rate",)
        note += " The last column: behind the prompt, weights and cache read once, over what memory gives."
    return Sheet("Decode", columns, _per_contender(facts, cells), ["dtype"], note)


def _memory(facts: Facts) -> Sheet:
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
    on_device = facts["settings"].get("provider", "cpu") not in ("cpu", "openvino")  # older files do not say
    note = "Memory of the CUDA device." if on_device else "Resident memory of the contender's own process."
    return Sheet("Memory and multiply-adds", columns, _per_contender(facts, cells), ["dtype"], note)


def _comparisons(facts: Facts) -> Sheet:
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
    return Sheet("Pruned beside dense", columns, rows, ["dense"], note)


def _profile(facts: Facts) -> Sheet:
    rows = []
    for name, profile in (facts["profiles"] or {}).items():
        for run in ("prefill", "decode"):
            found = profile.get(run)
            if found:
                shares = [f"{found['shares'][part]:.2%}" for part in _SHARES]
                top = ", ".join(list(found["operators"])[:4])
                rows.append((f"{name}, {run}", f"{1e3 * found['seconds']:,.1f}", *shares, top))
    columns = ("ONNX Runtime's profile", "ms", "ASAP", "attention", "matrix products", "rest", "most time in")
    note = "A node in a loop counts itself, the loop what is left; profiling itself slows the run down."
    return Sheet("Where the decoder's time goes", columns, rows, ["most time in"], note)


def _curve(facts: Facts) -> Sheet:
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
    return Sheet(
        "Cost against visual tokens", columns, rows, ["bundle"], "One prefill each, after a tiny one."
    )


def _rates(facts: Facts) -> Sheet:
    rows = []
    for name, rate in (facts.get("rates") or {}).items():
        if rate:
            unit, what = ("GB/s", "read") if name == "memory" else ("GFLOP/s", "matrix product")
            lowest, median, highest = (f"{rate[which] / 1e9:,.1f}" for which in ("min", "median", "max"))
            rows.append((f"{what}, {name}", unit, median, f"{lowest}–{highest}"))
    return Sheet("The machine's rates", ("rate", "unit", "median", "min–max"), rows, ["unit"])


def _notes(facts: Facts) -> Sheet:
    rows = [(contender["name"], contender["note"]) for contender in facts["contenders"] if contender["note"]]
    return Sheet("To know", ("contender", "what"), rows, ["what"])


def _skipped(facts: Facts) -> Sheet:
    rows = [(row["name"], row["reason"]) for row in facts["skipped"]]
    return Sheet("Left out", ("contender", "why"), rows, ["why"])


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _part(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _megabytes(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1e6:,.0f}" if value >= 1e7 else f"{value / 1e6:.1f}"


def _tera(value: float) -> str:
    return f"{value / 1e12:.3f}" if value >= 1e10 else f"{value / 1e12:.3g}"
