"""What verify found: the worst of every kind of comparison, everything that did not pass, and the verdict."""

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["parity_tables"]

_STYLES = {"PASS": "green", "AMBIGUOUS": "yellow", "FAIL": "bold red"}
_SHOWN = 20  # comparisons that did not pass; parity.json has all
_MEANING = {
    "PASS": "the bundle computes what PyTorch computes",
    "AMBIGUOUS": "the bundle agrees with PyTorch wherever a choice was clearer than rounding; with PyTorch's "
    "choice of tokens forced upon it, it agrees everywhere",
    "FAIL": "the bundle does not compute what PyTorch computes",
}

Facts = dict[str, Any]


def parity_tables(facts: Facts) -> Group:
    """``Report.facts()`` for a terminal: one line for each kind of comparison, with its worst case."""
    parts: list[RenderableType] = [_kinds(facts["checks"])]
    others = [check for check in facts["checks"] if check["verdict"] != "PASS"]
    if others:
        parts += [Text(""), _others(others[:_SHOWN])]
    if len(others) > _SHOWN:
        parts.append(Text(f"and {len(others) - _SHOWN} more in parity.json"))
    if facts["quantization"]:
        parts += [Text(""), _quantization(facts["quantization"])]
    parts += [Text(""), *(Text(f"note: {note}") for note in facts["notes"]), _verdict(facts)]
    return Group(*parts)


def _kinds(checks: list[Facts]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("compared")
    for name in ("times", "max error", "mean error", "cosine", "limit", "verdict"):
        table.add_column(name, justify="right")
    table.add_column("worst case", overflow="fold")
    kinds: dict[str, list[Facts]] = {}
    for check in checks:
        kinds.setdefault(_kind(check), []).append(check)
    for kind, group in kinds.items():
        worst = max(group, key=_badness)
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


def _kind(check: Facts) -> str:
    """Keys and values of all layers are one kind, as are the answers to all prompts."""
    part = check["name"].split(".")
    if check["group"] in ("graphs", "cpu"):
        decoder = "decoder.cpu" if check["group"] == "cpu" else "decoder"
        graph = {"image_features": "vision_encoder", "inputs_embeds": "embed_tokens"}.get(part[0], decoder)
        if part[0] == "cut":
            return f"{decoder}: {part[1]} before an ambiguous cut"
        return f"{graph}: {part[2] + 's of all layers' if part[0] == 'present' else check['name']}"
    return "greedy answers" if check["group"] == "answers" else f"{check['name']}"


def _badness(check: Facts) -> tuple[int, float]:
    return list(_STYLES).index(check["verdict"]), check["max_error"] or 0.0


def _cosines(group: Iterable[Facts]) -> list[float]:
    return [check["cosine"] for check in group if check["cosine"] is not None]


def _number(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.1e}"


def _others(checks: list[Facts]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("not passed", "in", "max error", "why"):
        table.add_column(name, overflow="fold")
    for check in checks:
        form = " (cpu)" if check["group"] == "cpu" else ""
        verdict = Text(f"{check['verdict']} {check['name']}{form}", style=_STYLES[check["verdict"]])
        table.add_row(verdict, check["case"], _number(check["max_error"]), check["detail"])
    return table


def _quantization(error: Facts) -> Table:
    """What quantization costs: PyTorch with the checkpoint's weights against PyTorch with the dequantized ones."""
    table = Table(box=None, pad_edge=False)
    table.add_column(f"int{error['bits']}, block size {error['block_size']}", overflow="fold")
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


def _verdict(facts: Facts) -> Text:
    verdict = facts["verdict"]
    part = (
        ""
        if facts["layers"] == facts["all_layers"]
        else f"{facts['layers']} of {facts['all_layers']} layers, "
    )
    return Text.assemble(
        (verdict, _STYLES[verdict]),
        f": {_MEANING[verdict]} ({part}{len(facts['checks'])} comparisons, {facts['compared_dtype']}, "
        f"{facts['provider']}, largest error allowed {facts['limit']:.1e} of a tensor's largest value)",
    )
