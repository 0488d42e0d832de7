"""``asap-export eval``: accuracy under pruning."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from asap_export.cli.options import AsJson, Revision
from asap_export.cli.progress import shown_progress
from asap_export.cli.tables import print_json, print_tables
from asap_export.report.evaluation import evaluation_tables

__all__ = ["eval_command"]


def eval_command(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="[SUBJECT]",
            help="Bundle, checkpoint folder or hub id. Without it, the built-in demo checkpoint.",
        ),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            metavar="DATA",
            help="Questions: synthetic (drawn scenes), a JSON-lines file, or a folder with one.",
        ),
    ] = "synthetic",
    split: Annotated[
        Literal["validation", "test"] | None,
        typer.Option(
            "--split",
            metavar="NAME",
            help="validation or test: the part of the synthetic questions, or the file NAME.jsonl of a folder.",
            show_default="test",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="N",
            help="Ask only the first N questions.",
            show_default="2,000 synthetic ones, or all of a file",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            metavar="LIST",
            help="Methods to compare, between commas: dense, asap, asap-received, asap-salience, asap-text, "
            "asap-last, asap-no-merge, asap-no-mask, fastv, random. Settings follow colons, as in "
            "asap:score=text:threshold=0.9",
            show_default="dense,asap,fastv,random, or a bundle's own",
        ),
    ] = None,
    budgets: Annotated[
        str,
        typer.Option(
            "--budgets",
            metavar="LIST",
            help="Budgets of each method, between commas: 22.2% of the visual tokens as the average over all "
            "layers; keep=40 or keep=16.7% after the cut.",
        ),
    ] = "33.3%,22.2%",
    runtime: Annotated[
        Literal["torch", "ort", "both"] | None,
        typer.Option(
            "--runtime",
            metavar="NAME",
            help="What answers: torch (PyTorch), ort (ONNX Runtime), or both.",
            show_default="ort for a bundle, else torch",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for every answer and the results. An evaluation that broke off there goes on.",
            show_default="named after SUBJECT",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", metavar=" ", help="Begin anew where the output folder has an evaluation."
        ),
    ] = False,
    instruction: Annotated[
        str,
        typer.Option(
            "--instruction", metavar="TEXT", help="Text to put behind every question.", show_default=False
        ),
    ] = "",
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", metavar="N", help="Longest answer, in tokens.")
    ] = 16,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="SOURCE",
            help="Checkpoint of a bundle that PyTorch is to answer for.",
            show_default="as at export",
        ),
    ] = None,
    revision: Revision = None,
    dtype: Annotated[
        Literal["fp32", "fp16", "bf16"] | None,
        typer.Option(
            "--dtype",
            help="Number format in which PyTorch computes with a checkpoint: fp32, fp16 or bf16.",
            show_default="fp32 on the CPU, the checkpoint's own on a GPU",
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            "--device", metavar="DEVICE", help="Device on which PyTorch computes: cpu, cuda or cuda:N."
        ),
    ] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure what pruning costs in accuracy: each method and budget beside dense, on the same questions."""
    from asap_export.evaluation import (
        EvaluationRequest,
        evaluate,
    )  # torch and transformers: seconds to import

    request = EvaluationRequest(
        subject=subject,
        dataset=dataset,
        split=split,
        limit=limit,
        methods=methods,
        budgets=budgets,
        runtime=runtime,
        output=output,
        overwrite=overwrite,
        instruction=instruction,
        max_new_tokens=max_new_tokens,
        model=model,
        revision=revision,
        dtype=dtype,
        device=device,
    )
    try:
        with shown_progress() as progress:
            results = evaluate(request, progress)
    except KeyboardInterrupt:
        print("what was answered is kept: the same command goes on from there", file=sys.stderr)
        raise
    if as_json:
        print_json(results.facts)
        return
    print_tables(evaluation_tables(results.facts))
    print(f"\nrecords and results: {results.folder}")
