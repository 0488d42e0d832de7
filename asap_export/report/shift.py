"""The attention shift and the fates of visual tokens, as ``explain`` found them, for a terminal."""

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

__all__ = ["shift_tables"]

_MEASURES = {
    "causal": "causal mask",
    "sg_bimask": "SG-BiMask",
    "even_causal": "even, causal",
    "even_sg_bimask": "even, SG-BiMask",
    "last_row": "last row (FastV)",
}


def shift_tables(facts: dict[str, Any]) -> Group:
    """Means over all images, then what became of each image's tokens; ``facts["output"]`` has the page."""
    return Group(
        Text("attention shift: rank correlation of score and raster position", style="bold"),
        _shift(facts["shift"]),
        Text(""),
        Text("mean score by row third, times the view's mean", style="bold"),
        _thirds(facts["thirds"]),
        Text(""),
        Text("visual tokens", style="bold"),
        _fates(facts["images"]),
        Text(""),
        Text(f"page and pictures: {facts['output']}"),
    )


def _shift(shift: dict[str, Any]) -> Table:
    table = Table("", box=None, pad_edge=False)
    for name in _MEASURES.values():
        table.add_column(name, justify="right")
    for view, found in shift.items():
        table.add_row(view, *(_mean(found[measure]) for measure in _MEASURES))
    return table


def _mean(mean: dict[str, Any] | None) -> str:
    if mean is None:
        return "-"
    deviation = "" if mean["deviation"] is None else f" ± {mean['deviation']:.2f}"
    return f"{mean['mean']:+.2f}{deviation}"


def _thirds(thirds: dict[str, Any]) -> Table:
    table = Table("", "mask", box=None, pad_edge=False)
    for name in ("upper", "middle", "lower"):
        table.add_column(name, justify="right")
    for view, found in thirds.items():
        for measure, means in found.items():
            table.add_row(
                view, _MEASURES[measure], *(f"{mean['mean']:.2f}" if mean else "-" for mean in means)
            )
    return table


def _fates(images: list[dict[str, Any]]) -> Table:
    table = Table("image", box=None, pad_edge=False)
    names = list(images[0]["fates"])
    for name in ("all", *names):
        table.add_column(name, justify="right")
    for image in images:
        counts = (image["visual_tokens"], *image["fates"].values())
        table.add_row(Text(image["file"]), *map(str, counts))
    return table
