"""``asap-export explain``: pictures and numbers of what pruning does to a prompt."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from asap_export.cli.options import (
    AsJson,
    Bimask,
    Keep,
    KeepRatio,
    LambdaMax,
    LayerAverage,
    Merge,
    PruneAfter,
    Revision,
    ScoreOption,
    Threshold,
    budget_of,
    given_pruning,
)
from asap_export.cli.progress import shown_progress
from asap_export.cli.tables import print_json, print_tables

__all__ = ["explain_command"]


def explain_command(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="Bundle, checkpoint folder or hub id. Without it, the built-in demo checkpoint.",
        ),
    ] = None,
    prompt: Annotated[
        str,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            help="The question. Images come first, or where <image> marks stand in it.",
        ),
    ] = ...,  # type: ignore[assignment]  # typer's sign for an option that must be given
    image: Annotated[
        list[Path] | None,
        typer.Option(
            "--image", metavar="FILE", help="Image that the question is about; repeat it for several."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="FOLDER",
            help="Instead of --image: ask about each image in a folder by itself.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for the page and its pictures.",
            show_default="named after SOURCE",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar=" ", help="Replace the explanation in the output folder.")
    ] = False,
    pictures: Annotated[
        int,
        typer.Option(
            "--pictures", metavar="N", help="Draw the first N images; the numbers are of all images."
        ),
    ] = 6,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="SOURCE",
            help="Checkpoint that a bundle was made from: a folder or hub id.",
            show_default="as at export",
        ),
    ] = None,
    revision: Revision = None,
    keep: Keep = None,
    keep_ratio: KeepRatio = None,
    budget: LayerAverage = None,
    method: Annotated[
        Literal["asap", "fastv"] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="How tokens are chosen: asap or fastv.",
            show_default="the bundle's, or asap",
            rich_help_panel="Pruning",
        ),
    ] = None,
    score: ScoreOption = None,
    lambda_max: LambdaMax = None,
    threshold: Threshold = None,
    merge: Merge = None,
    bimask: Bimask = None,
    prune_after: PruneAfter = None,
    as_json: AsJson = False,
) -> None:
    """Draw, on the image, which visual tokens are kept, and measure how attention shifts toward later ones.

    The budget and the way of pruning are the bundle's, or an export's defaults, where no option changes them.
    """
    pruning = {
        "method": method,
        "score": score,
        "lambda_max": lambda_max,
        "threshold": threshold,
        "merge": merge,
        "bidirectional": bimask,
        "prune_after": prune_after,
    }
    given = given_pruning(False, pruning)
    tokens = budget_of(keep, keep_ratio, budget)

    from asap_export.explain import ExplainRequest, explain  # torch and transformers: seconds to import
    from asap_export.report.shift import shift_tables

    request = ExplainRequest(
        prompt=prompt,
        source=source,
        model=model,
        revision=revision,
        images=tuple(image or ()),
        folder=images,
        output=output,
        overwrite=overwrite,
        budget=tokens,
        pruning=given,
        pictures=pictures,
    )
    with shown_progress() as progress:
        explanation = explain(request, progress)
    facts = {"output": str(explanation.output), **explanation.facts}
    if as_json:
        print_json(facts)
    else:
        print_tables(shift_tables(facts))
