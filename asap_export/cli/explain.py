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
            help="Bundle, checkpoint folder or hub id; the built-in demo checkpoint by default.",
        ),
    ] = None,
    prompt: Annotated[
        str, typer.Option("--prompt", metavar="TEXT", help="Question; <image> marks say where images stand.")
    ] = ...,  # type: ignore[assignment]  # typer's sign for an option that must be given
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="FILE", help="Image of the prompt, repeatable."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="FOLDER", help="Ask about each image in it by itself instead."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Page and pictures; by default named after the source."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the explanation that is there.")
    ] = False,
    pictures: Annotated[
        int, typer.Option("--pictures", metavar="N", help="Images shown in pictures; the numbers count all.")
    ] = 6,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="SOURCE", help="A bundle's checkpoint; where it was at export by default."
        ),
    ] = None,
    revision: Revision = None,
    keep: Keep = None,
    keep_ratio: KeepRatio = None,
    budget: LayerAverage = None,
    method: Annotated[
        Literal["asap", "fastv"] | None,
        typer.Option("--method", help="The bundle's own, or asap.", rich_help_panel="Pruning"),
    ] = None,
    score: ScoreOption = None,
    lambda_max: LambdaMax = None,
    threshold: Threshold = None,
    merge: Merge = None,
    bimask: Bimask = None,
    prune_after: PruneAfter = None,
    as_json: AsJson = False,
) -> None:
    """Draw, on the image, which visual tokens are kept, and measure the attention shift.

    Budget and pruning are the bundle's own, or the defaults of an export, where no option replaces them.
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
