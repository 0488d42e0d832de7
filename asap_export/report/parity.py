"""What verify found: a line for each level, near ties, what failed, and the verdict; or everything, kind by
kind."""

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["parity_screen", "parity_tables"]

_STYLES = {"PASS": "green", "FAIL": "bold red"}
_MARKS = {"PASS": "✓", "FAIL": "✗"}
_LEVELS = ("inputs", "weights", "operators", "graphs", "cut", "answers")
_SHOWN = 10  # kinds of comparisons that failed
_GRAPHS = {
    "image_features": "vision_encoder",
    "input_ids": "embed_tokens",
    "inputs_embeds": "embed_tokens",
}

Facts = dict[str, Any]


def parity_screen(facts: Facts) -> Group:
    """``Report.facts()`` on one screen."""
    levels = _grid(4)
    for level in _LEVELS:
        if checks := [check for check in facts["checks"] if check["level"] == level]:
            what, how = _SUMMARIES[level](checks)
            levels.add_row(_mark(checks), level, what, how)
    parts: list[RenderableType] = [levels]
    parts += [Text(f"note: {note}") for note in facts["notes"]]
    failed = [check for check in facts["checks"] if check["verdict"] == "FAIL"]
    if failed:
        parts += [Text(""), _failures(failed)]
    return Group(*parts, _verdict(facts), _next(facts))


def parity_tables(facts: Facts) -> Group:
    """``Report.facts()`` with one line for each kind of comparison, and its worst case."""
    parts: list[RenderableType] = [_kinds(facts["checks"])]
    others = [check for check in facts["checks"] if check["verdict"] == "FAIL" or check["near_tie"]]
    if others:
        parts += [Text(""), _others(others)]
    if facts["quantization"]:
        parts += [Text(""), _quantization(facts["quantization"])]
    parts += [Text(""), *(Text(f"note: {note}") for note in facts["notes"])]
    return Group(*parts, _verdict(facts), _next(facts))


def _inputs(checks: list[Facts]) -> tuple[str, str]:
    apart = max((check["max_error"] or 0.0 for check in checks), default=0.0)
    what = "pixels, token ids" if any("pixel" in check["name"] for check in checks) else "token ids"
    return what, "identical" if apart == 0 and _passed(checks) else _worst(checks)


def _weights(checks: list[Facts]) -> tuple[str, str]:
    return f"{len(checks)} quantized weights", _worst(checks)


def _operators(checks: list[Facts]) -> tuple[str, str]:
    outputs = {check["name"] for check in checks}
    return f"{len(outputs)} outputs, {len(_cases(checks))} cuts", _worst(checks)


def _graphs(checks: list[Facts]) -> tuple[str, str]:
    forms = sorted({check["form"] for check in checks if check["form"]})
    return ", ".join(forms), _worst(checks)


def _cut(checks: list[Facts]) -> tuple[str, str]:
    cuts = _cases(checks)
    bad = _cases([check for check in checks if check["verdict"] == "FAIL"])
    ties = [check for check in checks if check["near_tie"]]
    how = f"{len(cuts) - len(bad)} of {len(cuts)} explained"
    if ties:
        least = 1 - max(check["max_error"] for check in ties)
        how += f", {_count(len(ties), 'near tie')} (at least {least:.1%} of the tokens as PyTorch's)"
    return "kept visual tokens", how


def _answers(checks: list[Facts]) -> tuple[str, str]:
    good = [check for check in checks if check["verdict"] == "PASS"]
    ties = sum(check["near_tie"] for check in checks)
    return "greedy tokens", f"{len(good)} of {len(checks)}" + (
        f", {_count(ties, 'near tie')}" if ties else ""
    )


_SUMMARIES = {
    "inputs": _inputs,
    "weights": _weights,
    "operators": _operators,
    "graphs": _graphs,
    "cut": _cut,
    "answers": _answers,
}


def _worst(checks: list[Facts]) -> str:
    """The largest error as a part of its limit, and where it is."""
    failed = sum(check["verdict"] == "FAIL" for check in checks)
    if failed:
        return f"{failed} of {len(checks):,} comparisons failed"
    measured = [check for check in checks if check["limit"]]
    if not measured:
        return "all agree"
    worst = max(measured, key=_part)
    part = f"{_part(worst):.0%}" if _part(worst) >= 0.095 else f"{_part(worst):.1%}"
    return f"worst {part} of its limit: {_what(worst)}, {worst['case']}"


def _part(check: Facts) -> float:
    return float((check["max_error"] or 0.0) / check["limit"])


def _what(check: Facts) -> str:
    """A comparison in words: "values of layer 9"."""
    found = re.fullmatch(r"present\.(\d+)\.(key|value)", check["name"])
    return f"{found[2]}s of layer {found[1]}" if found else str(check["name"])


def _failures(failed: list[Facts]) -> Group:
    """What failed, kind by kind, each with its worst case."""
    table = _grid(3)
    kinds = _by_kind(failed)
    for kind, group in list(kinds.items())[:_SHOWN]:
        worst = max(group, key=lambda check: check["max_error"] or 0.0)
        words = worst["detail"] or f"off by {_number(worst['max_error'])}, allowed {_number(worst['limit'])}"
        times = f" ({len(group)} times)" if len(group) > 1 else ""
        table.add_row(Text("✗", style=_STYLES["FAIL"]), kind, f"{worst['case']}: {words}{times}")
    more = [Text(f"and {len(kinds) - _SHOWN} more kinds")] if len(kinds) > _SHOWN else []
    return Group(table, *more, Text(""))


def _cost(error: Facts) -> str:
    """What was compared with, and what quantization itself costs, which the verdict does not speak of."""
    parts = [f"{1 - error['tokens']:.1%} of the greedy tokens"]
    if error["kept"] is not None:
        parts.append(f"{1 - error['kept']:.1%} of the kept visual tokens")
    return (
        f", compared with PyTorch with these {error['bits']}-bit weights, which themselves change "
        f"{' and '.join(parts)}"
    )


def _verdict(facts: Facts) -> Text:
    verdict = facts["verdict"]
    ties = f", {_count(facts['near_ties'], 'near tie')}" if facts["near_ties"] else ""
    part = (
        ""
        if facts["layers"] == facts["all_layers"]
        else f"{facts['layers']} of {facts['all_layers']} layers, "
    )
    return Text.assemble(
        (f"{verdict}{ties}", _STYLES[verdict]),
        _cost(facts["quantization"]) if facts["quantization"] else "",
        f"   {part}{len(facts['checks']):,} comparisons, {facts['compared_dtype']}, {_provider(facts)}; "
        "more with --verbose and in parity.json",
    )


def _provider(facts: Facts) -> str:
    return " ".join(filter(None, (facts["provider"], facts["precision"])))


def _next(facts: Facts) -> Text:
    if facts["verdict"] == "FAIL":
        return Text(f"\nnext: asap-export verify {facts['bundle']} --verbose")
    return Text(f'\nnext: asap-export run {facts["bundle"]} --image FILE --prompt "What is in the image?"')


def _kinds(checks: list[Facts]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("compared")
    for name in ("times", "max error", "mean error", "cosine", "limit", "verdict"):
        table.add_column(name, justify="right")
    table.add_column("worst case", overflow="fold")
    for kind, group in _by_kind(checks).items():
        worst = max(group, key=lambda check: (check["verdict"] == "FAIL", check["max_error"] or 0.0))
        table.add_row(
            kind,
            str(len(group)),
            _number(worst["max_error"]),
            _number(worst["mean_error"]),
            "" if worst["cosine"] is None else f"{min(_cosines(group)):.7f}",
            _number(worst["limit"]),
            Text(worst["verdict"], style=_STYLES[worst["verdict"]]),
            f"{worst['case']}: {worst['detail']}" if worst["detail"] else worst["case"],
        )
    return table


def _by_kind(checks: Iterable[Facts]) -> dict[str, list[Facts]]:
    """Keys and values of all layers are one kind, as are their masks, and the answers to all prompts."""
    kinds: dict[str, list[Facts]] = {}
    for check in checks:
        part = check["name"].split(".")
        name = f"{part[2]}s of all layers" if part[0] == "present" else check["name"]
        name = "masks of layers" if name.startswith("mask of") else name
        graph = check["form"] or (_GRAPHS.get(name, "decoder's inputs") if check["level"] == "graphs" else "")
        kind = "greedy answers" if check["level"] == "answers" else f"{graph}: {name}" if graph else name
        kinds.setdefault(kind, []).append(check)
    return kinds


def _others(checks: list[Facts]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("failed, or near a tie", "in", "max error", "why"):
        table.add_column(name, overflow="fold")
    for check in checks:
        verdict = "FAIL" if check["verdict"] == "FAIL" else "near tie"
        name = ": ".join(part for part in (check["form"], check["name"]) if part)
        words = Text(f"{verdict} {name}", style=_STYLES[check["verdict"]])
        table.add_row(words, check["case"], _number(check["max_error"]), check["detail"])
    return table


def _quantization(error: Facts) -> Table:
    """What quantization costs: PyTorch with the checkpoint's weights against PyTorch with the dequantized ones."""
    table = Table(box=None, pad_edge=False)
    of = f"block size {error['block_size']}" if error["block_size"] else "a scale for each output"
    table.add_column(f"int{error['bits']}, {of}", overflow="fold")
    table.add_column("error", justify="right")
    table.add_column("of what it is a part", overflow="fold")
    rows = [
        (f"{error['weights']} weights, mean", error["weight_mean"], "the weight's norm"),
        (f"worst: {error['worst_weight']}", error["weight_worst"], "the weight's norm"),
        ("hidden states before the cut", error["hidden"], "their norm"),
        ("logits of the first new token", error["logits"], "their norm"),
    ]
    for name, value, part in rows:
        if value is not None:
            table.add_row(name, f"{value:.1%}", part)
    for name, value, part in (
        ("kept visual tokens that are others", error["kept"], "all kept ones"),
        ("greedy tokens from the first other one on", error["tokens"], "all tokens"),
    ):
        if value is not None:
            table.add_row(name, f"{1 - value:.1%}", part)
    return table


def _grid(columns: int) -> Table:
    """Short columns, and a last one that is broken into lines where a terminal is narrow."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(columns - 1):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _mark(checks: list[Facts]) -> Text:
    verdict = "PASS" if _passed(checks) else "FAIL"
    return Text(_MARKS[verdict], style=_STYLES[verdict])


def _passed(checks: Iterable[Facts]) -> bool:
    return all(check["verdict"] == "PASS" for check in checks)


def _cases(checks: Iterable[Facts]) -> set[tuple[str, str]]:
    """Prompts, each in every form of the decoder."""
    return {(check["case"], check["form"]) for check in checks}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _cosines(group: Iterable[Facts]) -> list[float]:
    return [check["cosine"] for check in group if check["cosine"] is not None]


def _number(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.1e}"
