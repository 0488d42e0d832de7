"""Options that several commands share, and what they mean together."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from asap_export.errors import UserError
from asap_export.pruning.config import Budget, Score

__all__ = [
    "PRUNING",
    "AsJson",
    "Bimask",
    "BundlePath",
    "Keep",
    "KeepRatio",
    "LambdaMax",
    "LayerAverage",
    "Merge",
    "Provider",
    "ProviderOption",
    "PruneAfter",
    "Revision",
    "ScoreOption",
    "Threshold",
    "budget_of",
    "given_pruning",
]

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]

_BUDGET = "Budget (one of)"
PRUNING = "Pruning"

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
ScoreOption = Annotated[
    Score | None,
    typer.Option("--score", help="What ranks visual tokens; last by default.", rich_help_panel=PRUNING),
]
LambdaMax = Annotated[
    float | None,
    typer.Option("--lambda-max", help="Strength of the soft mask; 0.5.", rich_help_panel=PRUNING),
]
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", help="Cosine above which tokens merge; 0.8.", rich_help_panel=PRUNING),
]
Merge = Annotated[
    bool | None,
    typer.Option("--merge/--no-merge", help="Merge near-duplicates; on.", rich_help_panel=PRUNING),
]
Bimask = Annotated[
    bool | None,
    typer.Option(
        "--bimask/--no-bimask",
        help="Open the causal mask softly in the scoring layer (SG-BiMask); on.",
        rich_help_panel=PRUNING,
    ),
]
PruneAfter = Annotated[
    int | None,
    typer.Option("--prune-after", help="Layers that see every token; 2.", rich_help_panel=PRUNING),
]


def budget_of(keep: int | None, ratio: float | None, layer_average: float | None) -> Budget | None:
    """The budget that the three options ask for, None where none is given; UserError where several are."""
    if keep is None and ratio is None and layer_average is None:
        return None
    return Budget(keep=keep, ratio=ratio, layer_average=layer_average)


def given_pruning(dense: bool, options: dict[str, Any]) -> dict[str, Any]:
    """The pruning options that were given; UserError for one that would do nothing beside another."""
    given = {name: value for name, value in options.items() if value is not None}
    asaps_own = {"score", "lambda_max", "threshold", "merge", "bidirectional"}
    idle = {"--dense": set(given) if dense else set(), "--no-bimask": set(), "--method fastv": set()}
    if given.get("method") == "fastv":
        idle["--method fastv"] = asaps_own & set(given)
    if given.get("bidirectional") is False:
        idle["--no-bimask"] = {"lambda_max"} & set(given)
    for by, names in idle.items():
        for name in sorted(names):
            option = "bimask" if name == "bidirectional" else name.replace("_", "-")
            raise UserError(f"expected no --{option} with {by}, found one; it would do nothing, leave it out")
    return given
