"""``asap-export bench``: speed and memory, beside what people would use instead."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from asap_export.bench.plots import curve_plot, first_token_plot, require_plots
from asap_export.bench.records import SCHEMA, SHOWN, BenchProvider
from asap_export.bench.tables import bench_tables
from asap_export.bench.tables import markdown as as_markdown
from asap_export.cli.options import AsJson, Keep
from asap_export.cli.progress import shown_progress
from asap_export.cli.tables import print_json, print_tables
from asap_export.errors import UserError

__all__ = ["bench_command"]

NOTHING_MEASURED = 1  # exit status; why is in the output

_OF_SHOWING = {"earlier", "plot", "markdown", "as_json"}
_WITHOUT_WEIGHTS, _PROMPT, _PEERS = "A model without its weights", "Prompt", "Peers"


def bench_command(
    context: typer.Context,
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[BUNDLE]...", help="Folders that exports of one model made."),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            metavar="NAME",
            help="Measure a public model without its weights: make a checkpoint of its shape, filled at random, "
            "and bundles of that.",
            rich_help_panel=_WITHOUT_WEIGHTS,
        ),
    ] = None,
    scale: Annotated[
        float,
        typer.Option(
            "--scale",
            metavar="R",
            help="Make the model of --like smaller: this part of its widths and heads, above 0 and up to 1.",
            rich_help_panel=_WITHOUT_WEIGHTS,
        ),
    ] = 1.0,
    layers: Annotated[
        int | None,
        typer.Option(
            "--layers",
            metavar="N",
            help="Decoder layers of the model of --like.",
            show_default="all",
            rich_help_panel=_WITHOUT_WEIGHTS,
        ),
    ] = None,
    contenders: Annotated[
        str | None,
        typer.Option(
            "--contenders",
            metavar="LIST",
            help="Bundles to make with --like, between commas: asap, dense, fastv, asap-int4, dense-int4.",
            show_default="the first four",
            rich_help_panel=_WITHOUT_WEIGHTS,
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            metavar="FOLDER",
            help="Folder that keeps the checkpoint and bundles of --like for the next time.",
            show_default="in the user's cache",
            rich_help_panel=_WITHOUT_WEIGHTS,
        ),
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(
            "--peers",
            metavar="LIST",
            help="What to measure beside bundles, between commas: transformers-sdpa, transformers-sdpa-asap, "
            "transformers-eager, transformers-eager-asap, transformers-compile, openvino-genai; or all, or none.",
            show_default="all that can run",
            rich_help_panel=_PEERS,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="SOURCE",
            help="Checkpoint that peers run: a folder or hub id.",
            show_default="the bundles', as at export",
            rich_help_panel=_PEERS,
        ),
    ] = None,
    openvino_python: Annotated[
        str | None,
        typer.Option(
            "--openvino-python",
            metavar="PYTHON",
            help="Python interpreter of an environment with openvino-genai and optimum-intel.",
            rich_help_panel=_PEERS,
        ),
    ] = None,
    openvino_model: Annotated[
        Path | None,
        typer.Option(
            "--openvino-model",
            metavar="FOLDER",
            help="Folder of the checkpoint as optimum-intel converted it, for openvino-genai.",
            rich_help_panel=_PEERS,
        ),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            "--image",
            metavar="FILE",
            help="Image of the prompt; repeat it for several.",
            show_default="drawn ones",
            rich_help_panel=_PROMPT,
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images",
            metavar="N",
            help="Instead of --image: draw N images.",
            show_default="1",
            rich_help_panel=_PROMPT,
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="TEXT", help="The question.", rich_help_panel=_PROMPT)
    ] = None,
    visual_tokens: Annotated[
        int | None,
        typer.Option(
            "--visual-tokens",
            metavar="N",
            help="Visual tokens in the prompt: more than so many of its images are left out.",
            show_default="2,880 of a drawn image, or the most it has",
            rich_help_panel=_PROMPT,
        ),
    ] = None,
    text_tokens: Annotated[
        int | None,
        typer.Option(
            "--text-tokens",
            metavar="N",
            help="Text tokens in the prompt: the question is repeated until there are so many.",
            show_default="64",
            rich_help_panel=_PROMPT,
        ),
    ] = None,
    keep: Keep = None,
    cache_lengths: Annotated[
        str,
        typer.Option(
            "--cache-lengths", metavar="LIST", help="Time decode steps behind so many tokens in the KV cache."
        ),
    ] = "128,542,1024,2944",
    decode_steps: Annotated[
        int,
        typer.Option(
            "--decode-steps", metavar="N", help="Decode steps to time at each cache length, in each round."
        ),
    ] = 8,
    rounds: Annotated[
        int,
        typer.Option(
            "--rounds", metavar="N", help="Rounds that are counted; in each, everything is measured once."
        ),
    ] = 5,
    warmup: Annotated[
        int, typer.Option("--warmup", metavar="N", help="Rounds to warm up with; they are not counted.")
    ] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", metavar="N", help="CPU threads of whatever is measured.", show_default="one per core"
        ),
    ] = None,
    processes: Annotated[
        Literal["auto", "kept", "fresh"],
        typer.Option(
            "--processes",
            metavar="HOW",
            help="Processes that are measured: kept over all rounds, fresh in each, or auto, as memory allows.",
        ),
    ] = "auto",
    provider: Annotated[
        BenchProvider,
        typer.Option(
            "--provider",
            metavar="NAME",
            help="What runs the bundles: cpu or cuda (ONNX Runtime), or tensorrt. Peers run on the CPU.",
        ),
    ] = "cpu",
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", metavar=" ", help="Say where the bundles' time goes, with ONNX Runtime's profiler."
        ),
    ] = False,
    curve: Annotated[
        str | None,
        typer.Option(
            "--curve",
            metavar="LIST",
            help="Measure prompts with each of these numbers of visual tokens too, pruned and dense.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE.svg",
            help="Draw the times to the first token there, and those of --curve to FILE-curve.svg.",
        ),
    ] = None,
    earlier: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Measure nothing: show what an earlier --output wrote to this file.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write everything that was measured to this file, as JSON."
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", metavar=" ", help="Print the tables as markdown.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the speed and memory of bundles, beside transformers and OpenVINO (peers) on the same checkpoint.

    Everything runs in turns, each in a process of its own.

    Without weights at hand: --like llava-v1.6-vicuna-7b --scale 0.25
    """
    if markdown and as_json:
        raise UserError("expected --markdown or --json, found both; give one of them")
    if plot is not None:
        require_plots(plot)
    if output is not None:
        _require_place(output)
    if earlier is not None:
        _refuse_measuring(context)
        _show(_read(earlier), plot, as_json, markdown)
        return
    lengths = _numbers("--cache-lengths", cache_lengths)
    visual = _numbers("--curve", curve) if curve is not None else ()

    from asap_export.bench import BenchRequest, bench  # torch and transformers: seconds to import

    request = BenchRequest(
        bundles=tuple(bundles or ()),
        like=like,
        scale=scale,
        layers=layers,
        work=work,
        contenders=contenders,
        peers=peers,
        model=model,
        openvino_python=openvino_python,
        openvino_model=openvino_model,
        images=tuple(image or ()),
        image_count=images,
        prompt=prompt,
        visual_tokens=visual_tokens,
        text_tokens=text_tokens,
        keep=keep,
        cache_lengths=lengths,
        decode_steps=decode_steps,
        rounds=rounds,
        warmup=warmup,
        threads=threads,
        profile=profile,
        curve=visual,
        processes=processes,
        provider=provider,
        command=("asap-export", *sys.argv[1:]),
    )
    with shown_progress() as progress:
        facts = bench(request, progress)
    if output is not None:
        partial = output.with_name(f".{output.name}.partial")
        partial.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.rename(output)
    _show(facts, plot, as_json, markdown)
    if not any(contender["samples"]["prefill"] for contender in facts["contenders"]):
        raise typer.Exit(NOTHING_MEASURED)


def _show(facts: dict[str, Any], plot: Path | None, as_json: bool, markdown: bool) -> None:
    if plot is not None:
        first_token_plot(facts, plot)
        if facts["curve"]:
            curve_plot(facts, plot.with_name(f"{plot.stem}-curve.svg"))
    if as_json:
        print_json(facts)
    elif markdown:
        print(as_markdown(facts))
    else:
        print_tables(bench_tables(facts))


def _require_place(file: Path) -> None:
    """Raise UserError where ``file`` cannot be written: better now than after the measurement."""
    if not file.parent.is_dir():
        raise UserError(f"expected a folder for {file}, found none; make it or choose another place")
    if file.is_dir():
        raise UserError(f"expected a file's name for --output, found the folder {file}; add a name")
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"expected to write to {file.parent}, found it closed; choose another place")


def _refuse_measuring(context: typer.Context) -> None:
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in _OF_SHOWING and source is not None and source.name == "COMMANDLINE":
            option = parameter.opts[0] if parameter.opts[0].startswith("-") else "a bundle"
            raise UserError(f"expected --from without anything to measure, found {option}; leave it out")


def _read(file: Path) -> dict[str, Any]:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"expected a measurement's JSON in {file}, found: {error}; give another file"
        ) from error
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA or not facts.keys() >= set(SHOWN):
        raise UserError(
            f"expected a measurement of schema {SCHEMA} in {file}, found another file; measure again"
        )
    return facts


def _numbers(option: str, listed: str) -> tuple[int, ...]:
    """Different whole numbers of a comma-separated list, in its order; UserError where it is none."""
    try:
        numbers = [int(number) for number in listed.split(",")]
    except ValueError:
        raise UserError(f"expected whole numbers between commas for {option}, found {listed!r}") from None
    return tuple(dict.fromkeys(numbers))
