"""Options that several commands share, and what they mean together."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from asap_export.errors import UserError
from asap_export.pruning.config import Budget, Score

__all__ = [
    "BUDGET",
    "PRUNING",
    "AsJson",
    "Bimask",
    "BundlePath",
    "Keep",
    "KeepRatio",
    "LambdaMax",
    "LayerAverage",
    "Merge",
    "Precision",
    "PrecisionOption",
    "Provider",
    "ProviderOption",
    "PruneAfter",
    "Revision",
    "ScoreOption",
    "Threshold",
    "budget_of",
    "given_pruning",
]

Provider = Literal["auto", "cpu", "openvino", "cuda", "tensorrt"]
Precision = Literal["auto", "f32", "bf16"]

BUDGET = "Visual tokens to keep (one of these)"
PRUNING = "Pruning"

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that an export made.")]
AsJson = Annotated[bool, typer.Option("--json", metavar=" ", help="Print JSON.")]
Revision = Annotated[
    str | None,
    typer.Option(
        "--revision", metavar="NAME", help="Branch, tag or commit of a hub id.", show_default="main"
    ),
]
ProviderOption = Annotated[
    Provider,
    typer.Option(
        "--provider",
        metavar="NAME",
        help="What runs the graphs: cpu or cuda (ONNX Runtime), openvino, tensorrt (the bundle's engines), or "
        "auto: the fastest that is here for this bundle.",
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        metavar="TYPE",
        help="With --provider openvino, what it computes products in: f32, bf16, or auto: bf16 where this CPU has "
        "instructions for it.",
    ),
]
Keep = Annotated[
    int | None,
    typer.Option("--keep", metavar="N", help="Keep N of a prompt's visual tokens.", rich_help_panel=BUDGET),
]
KeepRatio = Annotated[
    float | None,
    typer.Option(
        "--keep-ratio",
        metavar="R",
        help="Keep this part of a prompt's visual tokens, above 0 and up to 1.",
        show_default="1/6 for an export, else the bundle's budget",
        rich_help_panel=BUDGET,
    ),
]
LayerAverage = Annotated[
    float | None,
    typer.Option(
        "--budget",
        metavar="N",
        help="Keep N on average over all layers, those before the cut included, which is how papers count.",
        rich_help_panel=BUDGET,
    ),
]
ScoreOption = Annotated[
    Score | None,
    typer.Option(
        "--score",
        metavar="NAME",
        help="What ranks visual tokens: attention from the last token (last), from the text (text), from all "
        "(received), or their own salience (salience).",
        show_default="last",
        rich_help_panel=PRUNING,
    ),
]
LambdaMax = Annotated[
    float | None,
    typer.Option(
        "--lambda-max",
        metavar="R",
        help="Strength of the soft mask, above 0 and up to 1.",
        show_default="0.5",
        rich_help_panel=PRUNING,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="R",
        help="Visual tokens whose cosine similarity is above R are merged.",
        show_default="0.8",
        rich_help_panel=PRUNING,
    ),
]
Merge = Annotated[
    bool | None,
    typer.Option(
        "--merge/--no-merge",
        metavar=" ",
        help="Merge visual tokens that are nearly alike.",
        show_default="on",
        rich_help_panel=PRUNING,
    ),
]
Bimask = Annotated[
    bool | None,
    typer.Option(
        "--bimask/--no-bimask",
        metavar=" ",
        help="Open the causal mask softly in the scoring layer (SG-BiMask).",
        show_default="on",
        rich_help_panel=PRUNING,
    ),
]
PruneAfter = Annotated[
    int | None,
    typer.Option(
        "--prune-after",
        metavar="N",
        help="Cut after decoder layer N: the layers up to it see every token.",
        show_default="2",
        rich_help_panel=PRUNING,
    ),
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
