"""Options that several commands share, and what they mean together."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from asap_export.pruning.config import Budget

__all__ = [
    "AsJson",
    "BundlePath",
    "Keep",
    "KeepRatio",
    "LayerAverage",
    "Provider",
    "ProviderOption",
    "Revision",
    "budget_of",
]

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]

_BUDGET = "Budget (one of)"

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that an export made.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Revision = Annotated[
    str | None,
    typer.Option("--revision", metavar="NAME", help="Of a hub id: a branch, a tag or a commit."),
]
ProviderOption = Annotated[Provider, typer.Option("--provider", help="What runs the graphs.")]
Keep = Annotated[
    int | None,
    typer.Option(
        "--keep", metavar="N", help="Visual tokens of a prompt after the cut.", rich_help_panel=_BUDGET
    ),
]
KeepRatio = Annotated[
    float | None,
    typer.Option(
        "--keep-ratio", metavar="R", help="Part of them, in (0, 1]; 1/6 by default.", rich_help_panel=_BUDGET
    ),
]
LayerAverage = Annotated[
    float | None,
    typer.Option(
        "--budget",
        metavar="N",
        help="Their average over all layers, as papers count.",
        rich_help_panel=_BUDGET,
    ),
]


def budget_of(keep: int | None, ratio: float | None, layer_average: float | None) -> Budget | None:
    """The budget that the three options ask for, None where none is given; UserError where several are."""
    if keep is None and ratio is None and layer_average is None:
        return None
    return Budget(keep=keep, ratio=ratio, layer_average=layer_average)
