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

_OF_SHOWING = {"earlier", "plot", "markdown", "as_json", "quiet", "verbose"}
_WITHOUT_WEIGHTS, _PROMPT, _PEERS = "A model without its weights", "Prompt", "Peers"


def bench_command(
    context: typer.Context,
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[BUNDLE]...", help="Folders that exports made, of one model."),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            metavar="NAME",
            help="Make a checkpoint of a public model's shape, and bundles of it, instead.",
            rich_help_panel=_WITHOUT_WEIGHTS,
        ),
    ] = None,
    scale: Annotated[
        float,
        typer.Option(
            "--scale",
            metavar="R",
            help="Of its widths and heads, in (0, 1].",
            rich_help_panel=_WITHOUT_WEIGHTS,
        ),
    ] = 1.0,
    layers: Annotated[
        int | None,
        typer.Option("--layers", metavar="N", help="Of its decoder; all.", rich_help_panel=_WITHOUT_WEIGHTS),
    ] = None,
    contenders: Annotated[
        str | None,
        typer.Option(
            "--contenders",
            metavar="LIST",
            help="Bundles to make: asap, dense, fastv, asap-int4, dense-int4; the first four by default.",
            rich_help_panel=_WITHOUT_WEIGHTS,
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            metavar="FOLDER",
            help="Where they are kept for the next time; the user's cache by default.",
            rich_help_panel=_WITHOUT_WEIGHTS,
        ),
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(
            "--peers",
            metavar="LIST",
            help="transformers-sdpa, transformers-sdpa-asap, transformers-eager, transformers-eager-asap, "
            "transformers-compile, openvino-genai; all or none. All that can run by default.",
            rich_help_panel=_PEERS,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="SOURCE",
            help="Their checkpoint; where it was at export by default.",
            rich_help_panel=_PEERS,
        ),
    ] = None,
    openvino_python: Annotated[
        str | None,
        typer.Option(
            "--openvino-python",
            metavar="PYTHON",
            help="An interpreter that has openvino-genai and optimum-intel.",
            rich_help_panel=_PEERS,
        ),
    ] = None,
    openvino_model: Annotated[
        Path | None,
        typer.Option(
            "--openvino-model",
            metavar="FOLDER",
            help="The checkpoint as optimum-intel converts it.",
            rich_help_panel=_PEERS,
        ),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            "--image", metavar="FILE", help="Repeatable; drawn by default.", rich_help_panel=_PROMPT
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option("--images", metavar="N", help="How many to draw; 1.", rich_help_panel=_PROMPT),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="TEXT", help="Question.", rich_help_panel=_PROMPT)
    ] = None,
    visual_tokens: Annotated[
        int | None,
        typer.Option(
            "--visual-tokens",
            metavar="N",
            help="Used of the images; 2,880 of a drawn one, or the most it can have.",
            rich_help_panel=_PROMPT,
        ),
    ] = None,
    text_tokens: Annotated[
        int | None,
        typer.Option(
            "--text-tokens",
            metavar="N",
            help="The question is repeated to fill them; 64.",
            rich_help_panel=_PROMPT,
        ),
    ] = None,
    keep: Keep = None,
    cache_lengths: Annotated[
        str, typer.Option("--cache-lengths", metavar="LIST", help="Tokens in the cache when decode is timed.")
    ] = "128,542,1024,2944",
    decode_steps: Annotated[
        int, typer.Option("--decode-steps", metavar="N", help="Tokens timed at each length, in each round.")
    ] = 8,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", help="That count.")] = 5,
    warmup: Annotated[int, typer.Option("--warmup", metavar="N", help="Rounds before them.")] = 1,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", help="Of every contender; one per core.")
    ] = None,
    processes: Annotated[
        Literal["auto", "kept", "fresh"],
        typer.Option("--processes", help="Kept over all rounds, or fresh in each; what memory allows."),
    ] = "auto",
    provider: Annotated[
        BenchProvider, typer.Option("--provider", help="What runs the bundles; peers run on the CPU.")
    ] = "cpu",
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Say where the bundles' time goes, with ONNX Runtime's profiler."),
    ] = False,
    curve: Annotated[
        str | None,
        typer.Option(
            "--curve", metavar="LIST", help="Cost against these numbers of visual tokens, pruned and dense."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE.svg", help="Time to first token; of a curve FILE-curve.svg, too."
        ),
    ] = None,
    earlier: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Measure nothing; show what --output wrote there."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the JSON there, all samples included."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure bundles and peers in turns, each in a process of its own: times, memory, FLOPs.

    Without weights at hand, --like llava-v1.6-vicuna-7b --scale 0.25 makes a model of that shape and measures it.
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
