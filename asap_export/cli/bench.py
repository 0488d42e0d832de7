"""``asap-export bench``: speed and memory, beside what people would use instead."""

import inspect
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from asap_export.bench.plots import curve_plot, first_token_plot, require_plots
from asap_export.bench.records import SCHEMA, SHOWN
from asap_export.bench.request import BenchRequest
from asap_export.cli.progress import shown_progress
from asap_export.cli.tables import print_json, print_tables
from asap_export.errors import UserError
from asap_export.report.bench import bench_markdown, bench_tables

__all__ = ["bench_command"]

NOTHING_MEASURED = 1  # exit status; why is in the output

_WITHOUT_WEIGHTS, _PROMPT, _PEERS = "A model without its weights", "Prompt", "Peers"


def _numbers(listed: str | tuple[int, ...]) -> tuple[int, ...]:
    """Different whole numbers of a comma-separated list, in its order; UserError where it is none."""
    try:
        numbers = [int(number) for number in (listed.split(",") if isinstance(listed, str) else listed)]
    except ValueError:
        raise UserError(
            f"expected whole numbers between commas, found {listed!r}; correct the list"
        ) from None
    return tuple(dict.fromkeys(numbers))


class _Numbers(tuple[int, ...]):
    """What Typer takes a list of numbers for: of a tuple it would want each number as an argument of its own."""


@dataclass(frozen=True)
class _Output:
    """What becomes of the facts."""

    plot: Path | None = None
    earlier: Path | None = None
    output: Path | None = None
    markdown: bool = False
    as_json: bool = False

    def check(self) -> None:
        """Raise UserError for what cannot be written: better now than after the measurement."""
        if self.markdown and self.as_json:
            raise UserError("expected --markdown or --json, found both; give one of them")
        if self.plot is not None:
            require_plots(self.plot)
        file = self.output
        if file is not None and not file.parent.is_dir():
            raise UserError(f"expected a folder for {file}, found none; make it or choose another place")
        if file is not None and file.is_dir():
            raise UserError(f"expected a file's name for --output, found the folder {file}; add a name")
        if file is not None and not os.access(file.parent, os.W_OK):
            raise UserError(f"expected to write to {file.parent}, found it closed; choose another place")

    def show(self, facts: dict[str, Any]) -> None:
        if self.plot is not None:
            first_token_plot(facts, self.plot)
            if facts["curve"]:
                curve_plot(facts, self.plot.with_name(f"{self.plot.stem}-curve.svg"))
        if self.as_json:
            print_json(facts)
        elif self.markdown:
            print(bench_markdown(facts))
        else:
            print_tables(bench_tables(facts))


def _option(names: str, text: str, metavar: str | None = None, panel: str | None = None, **more: Any) -> Any:
    return typer.Option(*names.split(), metavar=metavar, help=text, rich_help_panel=panel, **more)


# Of the request's and the output's fields, by name; what one means and its default stand there.
_OPTIONS: dict[str, Any] = {
    "bundles": typer.Argument(metavar="BUNDLE", help="Folders that exports of one model made."),
    "like": _option(
        "--like",
        "Measure a public model without its weights: make a checkpoint of its shape, filled at random, "
        "and bundles of that.",
        "NAME",
        _WITHOUT_WEIGHTS,
    ),
    "scale": _option(
        "--scale",
        "Make the model of --like smaller: this part of its widths and heads, above 0 and up to 1.",
        "R",
        _WITHOUT_WEIGHTS,
    ),
    "layers": _option(
        "--layers", "Decoder layers of the model of --like; all by default.", "N", _WITHOUT_WEIGHTS
    ),
    "dtype": _option(
        "--dtype",
        "Dtype of the model of --like: fp32, fp16 or bf16; by default fp32 on a CPU and fp16 on a device.",
        "DTYPE",
        _WITHOUT_WEIGHTS,
    ),
    "contenders": _option(
        "--contenders",
        "Bundles to make with --like, between commas: asap, dense, fastv, and asap and dense with -int4 or -int8.",
        "LIST",
        _WITHOUT_WEIGHTS,
    ),
    "work": _option(
        "--work",
        "Folder that keeps the checkpoint and bundles of --like for the next time; in the user's cache by "
        "default.",
        "FOLDER",
        _WITHOUT_WEIGHTS,
    ),
    "peers": _option(
        "--peers",
        "Who takes part beside the bundles, between commas: transformers, openvino-genai, llama.cpp, or none; by "
        "default transformers where the bundles' checkpoint is found, and openvino-genai with --openvino-python.",
        "LIST",
        _PEERS,
    ),
    "model": _option(
        "--model",
        "Checkpoint that peers run, a folder or hub id; by default the bundles', where it was at export.",
        "SOURCE",
        _PEERS,
    ),
    "openvino_python": _option(
        "--openvino-python",
        "Interpreter of an environment with openvino-genai and optimum-intel, which converts the checkpoint.",
        "FILE",
        _PEERS,
    ),
    "image": _option(
        "--image", "Image of the prompt, repeat it for several; a drawn one by default.", "FILE", _PROMPT
    ),
    "visual_tokens": _option(
        "--visual-tokens",
        "Visual tokens of the prompt; by default all of given images, or 2,880 of a drawn one.",
        "N",
        _PROMPT,
    ),
    "text_tokens": _option(
        "--text-tokens",
        "Text tokens of the prompt: the question is repeated until there are so many.",
        "N",
        _PROMPT,
    ),
    "keep": _option(
        "--keep", "Visual tokens after the cut; the first bundle's budget by default.", "N", _PROMPT
    ),
    "cache_lengths": _option(
        "--cache-lengths", "Time decode steps behind so many tokens in the KV cache.", "LIST", parser=_numbers
    ),
    "decode_steps": _option(
        "--decode-steps", "Decode steps to time at each cache length, in each round.", "N"
    ),
    "rounds": _option("--rounds", "Rounds that are counted; in each, everything is measured once.", "N"),
    "warmup": _option("--warmup", "Rounds to warm up with; they are not counted.", "N"),
    "threads": _option("--threads", "CPU threads of whatever is measured; one per core by default.", "N"),
    "provider": _option(
        "--provider",
        "What runs the bundles: cpu, openvino (beside cpu), cuda or tensorrt; transformers uses the same device.",
    ),
    "precision": _option(
        "--precision",
        "With --provider openvino, what it computes the bundles' products in: f32, bf16, or auto: bf16 where this "
        "CPU has instructions for it.",
        "TYPE",
    ),
    "profile": _option("--profile", "Say where the bundles' time goes, with ONNX Runtime's profiler."),
    "curve": _option(
        "--curve",
        "Measure prompts with each of these numbers of visual tokens too, pruned and dense.",
        "LIST",
        parser=_numbers,
    ),
    "plot": _option(
        "--plot",
        "Draw the times to the first token there, and those of --curve to FILE-curve.svg.",
        "FILE.svg",
    ),
    "earlier": _option(
        "--from", "Measure nothing: show what an earlier --output wrote to this file.", "FILE"
    ),
    "output": _option("--output -o", "Write everything that was measured to this file, as JSON.", "FILE"),
    "markdown": _option("--markdown", "Print the tables as markdown."),
    "as_json": _option("--json", "Print JSON."),
}
_LISTS: dict[Any, Any] = {tuple[Path, ...]: list[Path], tuple[int, ...]: _Numbers}  # as Typer takes them


def _parameters() -> list[inspect.Parameter]:
    """Of the command: the fields of what it builds, each with its option."""
    found = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    for field in (*fields(BenchRequest), *fields(_Output)):
        if field.name in _OPTIONS:  # the command is no option
            kind: Any = Annotated[_LISTS.get(field.type, field.type), _OPTIONS[field.name]]
            default: Any = field.default
            default = list(default) if field.type == tuple[Path, ...] else default
            found.append(
                inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
                )
            )
    return found


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with a signature for Typer."""
    signature = inspect.Signature(_parameters())
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: of.annotation for name, of in signature.parameters.items()}
    return command


@_with_options
def bench_command(*, context: typer.Context, **options: Any) -> None:
    """Measure bundles and peers in turns, each in a process of its own: times, memory, FLOPs.

    Without weights at hand: --like llava-v1.6-vicuna-7b --scale 0.25
    """
    output = _Output(**{field.name: options.pop(field.name) for field in fields(_Output)})
    output.check()
    if output.earlier is not None:
        _refuse_measuring(context)
        output.show(_read(output.earlier))
        return
    from asap_export.bench import bench  # torch and transformers: seconds to import

    lists = {name: tuple(value) for name, value in options.items() if isinstance(value, list | tuple)}
    request = BenchRequest(**options | lists, command=("asap-export", *sys.argv[1:]))
    with shown_progress() as progress:
        facts = bench(request, progress)
    if output.output is not None:
        partial = output.output.with_name(f".{output.output.name}.partial")
        partial.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.rename(output.output)
    output.show(facts)
    if not any(contender["samples"]["prefill"] for contender in facts["contenders"]):
        raise typer.Exit(NOTHING_MEASURED)


def _refuse_measuring(context: typer.Context) -> None:
    showing = {field.name for field in fields(_Output)} - {"output"} | {"quiet", "verbose"}
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in showing and source is not None and source.name == "COMMANDLINE":
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
