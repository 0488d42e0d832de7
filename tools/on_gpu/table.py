"""A report for people: a line for each step as parts end, and tables at the end, by Rich where it is installed."""

from collections.abc import Iterator
from typing import Any

Row = tuple[str, ...]


def part_lines(part: dict[str, Any]) -> Iterator[str]:
    """What became of each step; for those without a result, why."""
    if part["failed"]:
        yield f"FAILED {part['failed']}"
    for name, step in part["steps"].items():
        yield f"{step['state']:7} {name}" + (f": {step['reason']}" if "reason" in step else "")


def show(report: dict[str, Any]) -> None:
    """All tables that the report has rows for."""
    device = report["device"]
    title = ", ".join(
        str(device[name]) for name in ("name", "compute_capability", "driver") if device.get(name)
    )
    packages = report["versions"]
    print(f"\n{title}; torch {packages['torch']}, transformers {packages['transformers']}")
    if report["rehearsal"]:
        print("REHEARSAL on a CPU with a tiny model: no number below says anything about a device")
    for heading, columns, rows in tables(report):
        if rows:
            _print(heading, columns, rows)


def tables(report: dict[str, Any]) -> Iterator[tuple[str, Row, list[Row]]]:
    steps = _results(report, "reference")
    yield "milliseconds", ("step", "of", "median", "from", "to"), list(_times(steps))
    memory = [
        (name, f"{size / 1e9:.3f} GB")
        for step in ("memory", "memory, fused")
        for name, size in steps.get(step, {}).items()
    ]
    yield "peak memory above the weights", ("prefill", "peak"), memory
    yield (
        "the device's form beside the reference",
        ("form", "of", "kept by both", "logits"),
        list(_agreement(steps)),
    )
    yield "goals", ("prefill", "goal", "found", "allowed", "reached"), list(_goals(steps))
    operators = _results(report, "operators")
    yield "operators", ("what", "compared", "differ", "near ties", "worst error"), list(_operators(operators))
    bundles = _results(report, "onnxruntime") | _results(report, "tensorrt")
    yield "bundles", ("bundle", "verdict", "prefill", "per token"), list(_bundles(bundles))


def _results(report: dict[str, Any], part: str) -> dict[str, Any]:
    steps = report["parts"].get(part, {}).get("steps", {})
    return {name: step["result"] for name, step in steps.items() if step["state"] == "done"}


def _times(steps: dict[str, Any]) -> Iterator[Row]:
    for step, result in steps.items():
        for name, times in result.items():
            if isinstance(times, dict) and "median_ms" in times:
                spread = (f"{times[key]:.3f}" for key in ("median_ms", "quartile_1_ms", "quartile_3_ms"))
                yield step, name, *spread


def _goals(steps: dict[str, Any]) -> Iterator[Row]:
    for step, result in steps.items():
        for goal in result.get("goals", ()):
            reached = {True: "yes", False: "no", None: "rehearsal"}[goal["reached"]]
            found, allowed = (f"{goal[key]:.3f} {goal['unit']}" for key in ("found", "allowed"))
            yield step, goal["goal"], found, allowed, reached


def _agreement(steps: dict[str, Any]) -> Iterator[Row]:
    for form in ("device", "fused"):
        for name, found in steps.get(f"agreement, {form}", {}).items():
            yield form, name, f"{found['kept_by_both']:.1%}", f"{found['logits_error']:.1e}"


def _operators(steps: dict[str, Any]) -> Iterator[Row]:
    for step, found in steps.items():
        counts = (str(found[key]) for key in ("compared", "differs", "near_ties"))
        numbers = [each for each in found["worst"].values() if each["limit"]]
        worst = max(numbers, key=lambda each: each["error"] / each["limit"])
        yield step, *counts, f"{worst['error']:.1e} of {worst['limit']:.1e}, {worst['name']}"


def _bundles(steps: dict[str, Any]) -> Iterator[Row]:
    for step, found in steps.items():
        if "verdict" in found:
            times = (f"{found.get(key, float('nan')):.2f} ms" for key in ("prefill_ms", "per_token_ms"))
            yield step, found["verdict"], *times


def _print(heading: str, columns: Row, rows: list[Row]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(f"\n{heading}\n" + "\n".join("  ".join(row) for row in (columns, *rows)))
        return
    table = Table(title=heading, box=None, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=130).print(table)
