"""``verify``, ``inspect``, ``flops`` and ``env``: facts, as tables or as JSON."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from asap_export.bundle import Bundle
from asap_export.cli.options import (
    AsJson,
    BundlePath,
    Keep,
    KeepRatio,
    LayerAverage,
    PrecisionOption,
    ProviderOption,
    Revision,
    budget_of,
)
from asap_export.cli.progress import shown_progress
from asap_export.cli.tables import print_json, print_tables
from asap_export.errors import UserError

__all__ = ["env_command", "flops_command", "inspect_command", "verify_command"]

FAILED = 1


def verify_command(
    bundle: BundlePath,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="SOURCE",
            help="Checkpoint that the bundle was made from: a folder or hub id.",
            show_default="as at export",
        ),
    ] = None,
    revision: Revision = None,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = "auto",
    image: Annotated[
        list[Path] | None,
        typer.Option(
            "--image",
            metavar="FILE",
            help="Compare on this image instead of the built-in ones; repeat it for several.",
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            "--layers",
            metavar="N",
            help="Compare only the first N decoder layers and the pruning, on fewer prompts: for a model larger "
            "than memory.",
        ),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            metavar=" ",
            help="Print every kind of comparison, with its errors and worst case.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare a bundle with PyTorch: inputs, operators, graphs, kept tokens and answers.

    Ends in PASS, or in FAIL and exit status 1 where rounding does not explain a difference.

    What was compared is written to parity.json in the bundle.
    """
    from asap_export.parity import verify
    from asap_export.report.parity import parity_screen, parity_tables

    with shown_progress() as progress:
        report = verify(
            bundle,
            model=model,
            revision=revision,
            provider=provider,
            precision=precision,
            images=tuple(image or ()),
            layers=layers,
            progress=progress,
        )
    facts = report.facts()
    if as_json:
        print_json(facts)
    else:
        print_tables(parity_tables(facts) if verbose else parity_screen(facts))
    if report.verdict == "FAIL":
        raise typer.Exit(FAILED)


def inspect_command(
    bundle: BundlePath,
    as_json: AsJson = False,
    trtexec: Annotated[
        bool,
        typer.Option(
            "--trtexec", metavar=" ", help="Print the commands that time its engines with NVIDIA's trtexec."
        ),
    ] = False,
) -> None:
    """Print what a bundle holds: graphs, dimensions, settings, engines, files and their hashes."""
    from asap_export.report import bundle_facts, bundle_tables, trtexec_commands

    opened = Bundle.open(bundle)
    if trtexec:
        if not opened.manifest.engines:
            raise UserError(f"expected engines in {bundle}, found none; export with --engine trt")
        for title, command in trtexec_commands(opened):
            print(f"# {title}\n{command}")
        return
    facts = bundle_facts(opened)
    if as_json:
        print_json(facts)
    else:
        print_tables(bundle_tables(facts))


def flops_command(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="Checkpoint folder, hub id, bundle, config.json alone, or a name that --list prints. Without it, "
            "the built-in demo.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="SOURCE", help="Another way to give SOURCE, as for an export."),
    ] = None,
    revision: Revision = None,
    keep: Keep = None,
    keep_ratio: KeepRatio = None,
    budget: LayerAverage = None,
    visual_tokens: Annotated[
        int | None,
        typer.Option(
            "--visual-tokens",
            metavar="N",
            help="Visual tokens in the prompt.",
            show_default="the most that one image has",
        ),
    ] = None,
    text_tokens: Annotated[
        int, typer.Option("--text-tokens", metavar="N", help="Text tokens in the prompt.")
    ] = 64,
    dtype: Annotated[
        Literal["fp32", "fp16", "bf16"] | None,
        typer.Option(
            "--dtype",
            metavar="TYPE",
            help="Number format of the KV cache: fp32, fp16 or bf16.",
            show_default="as stored",
        ),
    ] = None,
    listed: Annotated[
        bool,
        typer.Option(
            "--list",
            metavar=" ",
            help="Print the public checkpoints that are known by name, and nothing else.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print what pruning saves of one prompt: FLOPs and bytes of the KV cache, pruned beside dense.

    FLOPs are counted twice: as the ASAP paper counts, visual tokens alone, and for the whole sequence.
    """
    from asap_export.report import flops_facts, flops_table

    if listed:
        _print_presets(as_json, (source, model, revision, keep, keep_ratio, budget, visual_tokens, dtype))
        return
    if source is not None and model is not None:
        raise UserError(f"expected one source, found {source} and --model {model}; leave one out")
    facts = flops_facts(
        source if source is not None else model,
        revision=revision,
        budget=budget_of(keep, keep_ratio, budget),
        visual_tokens=visual_tokens,
        text_tokens=text_tokens,
        dtype=dtype,
    )
    if as_json:
        print_json(facts)
    else:
        print_tables(flops_table(facts))


def _print_presets(as_json: bool, others: tuple[object, ...]) -> None:
    from asap_export.report import preset_facts, preset_table

    if found := [f"{other}" for other in others if other is not None]:
        raise UserError(f"expected --list alone, found {found[0]} too; leave one out")
    facts = preset_facts()
    if as_json:
        print_json(facts)
    else:
        print_tables(preset_table(facts))


def env_command(as_json: AsJson = False) -> None:
    """Print what a bug report needs: versions of this package and its libraries, processor, memory and GPUs."""
    from asap_export.report import environment_facts, environment_table

    facts = environment_facts()
    if as_json:
        print_json(facts)
    else:
        print_tables(environment_table(facts))
