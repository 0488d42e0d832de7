"""``asap-export`` without a command, and ``asap-export export``: a checkpoint becomes a bundle."""

from collections.abc import Callable, Iterator
from dataclasses import Field, fields
from importlib import metadata
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Literal, cast, get_args, get_type_hints

import typer

from asap_export.cli.options import (
    BUDGET,
    PRUNING,
    Bimask,
    Keep,
    KeepRatio,
    LambdaMax,
    LayerAverage,
    Merge,
    PruneAfter,
    ScoreOption,
    Threshold,
    budget_of,
    given_pruning,
)
from asap_export.cli.progress import shown_progress
from asap_export.cli.verbosity import SHOWN
from asap_export.errors import UserError
from asap_export.exporter import ExportRequest
from asap_export.exporter.request import BUNDLE, ENGINES, RUNTIME
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.spec import BLOCK_SIZES, QUANTIZATIONS, CpuPass, Quantization

__all__ = ["EXPORT_OPTIONS", "export_command", "program"]


def _budget(keep: Keep = None, keep_ratio: KeepRatio = None, budget: LayerAverage = None) -> Budget | None:
    return budget_of(keep, keep_ratio, budget)


def _pruning(
    dense: Annotated[
        bool,
        typer.Option(
            "--dense", metavar=" ", help="Keep all: no pruning, the baseline.", rich_help_panel=BUDGET
        ),
    ] = False,
    method: Annotated[
        Literal["asap", "fastv"] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="How to prune: asap, or fastv for comparison.",
            show_default="asap",
            rich_help_panel=PRUNING,
        ),
    ] = None,
    score: ScoreOption = None,
    lambda_max: LambdaMax = None,
    threshold: Threshold = None,
    merge: Merge = None,
    bimask: Bimask = None,
    prune_after: PruneAfter = None,
    trim_early_kv: Annotated[
        bool | None,
        typer.Option(
            "--trim-early-kv/--no-trim-early-kv",
            metavar=" ",
            help="Drop pruned tokens from the KV cache of the layers before the cut too.",
            show_default="on",
            rich_help_panel=PRUNING,
        ),
    ] = None,
) -> PruningConfig:
    settings = {"method": method, "score": score, "lambda_max": lambda_max, "threshold": threshold}
    settings |= {"merge": merge, "bidirectional": bimask, "prune_after": prune_after}
    given = given_pruning(dense, settings | {"trim_early_kv": trim_early_kv})
    return PruningConfig(method="none") if dense else PruningConfig(**given)


def _quantization(
    quantize: Annotated[
        Literal["int4", "int8"] | None,
        typer.Option(
            "--quantize",
            metavar="TYPE",
            help="Store the weights of the decoder's linear layers in 4 or 8 bits: int4, or int8, with "
            "which ONNX Runtime on a CPU rounds activations to 8 bits too.",
            show_default="off",
            rich_help_panel=BUNDLE,
        ),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option(
            "--block-size",
            metavar="N",
            help="With --quantize int4: how many weights share a scale, 32, 64 or 128.",
            show_default="64",
            rich_help_panel=BUNDLE,
        ),
    ] = None,
) -> Quantization | None:
    if quantize is None:
        if block_size is not None:
            raise UserError("expected --block-size with --quantize, found it alone; add --quantize int4")
        return None
    if quantize == "int8" and block_size is not None:
        raise UserError(
            "expected --block-size with --quantize int4, found int8, which has one scale for each output; "
            "leave it out"
        )
    if block_size is not None and block_size not in BLOCK_SIZES:
        raise UserError(f"expected --block-size 32, 64 or 128, found {block_size}; change it")
    return QUANTIZATIONS[quantize] if block_size is None else Quantization(block_size=block_size)  # type: ignore[arg-type]  # checked above


def _cpu_passes(
    cpu_passes: Annotated[
        str | None,
        typer.Option(
            "--cpu-passes",
            metavar="LIST",
            help="Passes that make the faster form of the decoder for CPUs: fused-attention, blockwise-soft-mask, "
            "skipped-cut, int8-activations (with --quantize), between commas; or none, for no such form.",
            show_default="the first three, all with --quantize int8",
            rich_help_panel=RUNTIME,
        ),
    ] = None,
) -> tuple[CpuPass, ...] | None:
    if cpu_passes is None:
        return None
    if cpu_passes == "none":
        return ()
    chosen, known = cpu_passes.split(","), get_args(CpuPass)
    if unknown := [name for name in chosen if name not in known]:
        raise UserError(f"expected --cpu-passes among {', '.join(known)}, or none; found {unknown[0]!r}")
    return tuple(cast(CpuPass, name) for name in known if name in chosen)


def _compute_capabilities(
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            "--compute-capability",
            metavar="X.Y",
            help="GPU to build for, by its compute capability, such as 8.9; repeatable.",
            show_default="this machine's, or without a GPU all from 8.6",
            rich_help_panel=ENGINES,
        ),
    ] = None,
) -> tuple[str, ...]:
    return tuple(compute_capability or ())


# Fields of a request that are made of options with other names or types; every other one is an option itself.
_MADE: dict[str, Callable[..., Any]] = {
    "budget": _budget,
    "pruning": _pruning,
    "quantization": _quantization,
    "cpu_passes": _cpu_passes,
    "compute_capabilities": _compute_capabilities,
}


def _parameters() -> Iterator[Parameter]:
    """The options of an export, in the order of a request's fields."""
    hints = get_type_hints(ExportRequest)
    for setting in fields(ExportRequest):
        if make := _MADE.get(setting.name):
            yield from signature(make).parameters.values()
        else:
            yield _parameter(setting, hints[setting.name])


def _parameter(setting: Field[Any], kind: Any) -> Parameter:
    """The option of a field that states one."""
    stated, name = setting.metadata, setting.name.replace("_", "-")
    flags = [f"--{name}/--no-{name}" if setting.default is True else f"--{name}"]
    option = typer.Option(
        *flags,
        *filter(None, [stated["short"]]),
        metavar=" " if kind is bool else stated["metavar"],
        help=stated["says"],
        rich_help_panel=stated["group"],
        show_default=stated["shown"] or kind is not bool,
    )
    return Parameter(
        setting.name, Parameter.KEYWORD_ONLY, default=setting.default, annotation=Annotated[kind, option]
    )


EXPORT_OPTIONS = tuple(parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in _parameters())
_Plan = Annotated[
    bool,
    typer.Option(
        "--plan",
        metavar=" ",
        help="Check everything and print what would be done; write nothing.",
        rich_help_panel=SHOWN,
    ),
]
_Json = Annotated[bool, typer.Option("--json", metavar=" ", help="Print JSON.", rich_help_panel=SHOWN)]
_Version = Annotated[
    bool,
    typer.Option("--version", metavar=" ", help="Print the version and exit.", rich_help_panel=SHOWN),
]


def export_command(*, plan: _Plan = False, as_json: _Json = False, **options: Any) -> None:
    """Export a checkpoint to a bundle; the same as asap-export without a command."""
    request = _request(options)
    from asap_export.cli.summary import (
        print_exported,
        print_plan,
    )  # torch and transformers: seconds to import
    from asap_export.exporter import carry_out, plan_export

    with shown_progress() as progress:
        planned = plan_export(request, progress)
        exported = None if plan else carry_out(planned, progress)
    if exported is None:
        print_plan(planned, as_json)
    else:
        print_exported(exported, as_json)


def program(
    context: typer.Context,
    *,
    plan: _Plan = False,
    as_json: _Json = False,
    version: _Version = False,
    **options: Any,
) -> None:
    """LLaVA-NeXT and LLaVA-1.5 to ONNX and TensorRT, with ASAP visual-token pruning inside the language model.

    Without a command it exports a checkpoint to a bundle, the folder that the other commands work on.
    """
    if version:
        print(f"asap-export {metadata.version('asap-export')}")
    elif context.invoked_subcommand is not None:
        _refuse_stray_options(context)
    else:
        export_command(plan=plan, as_json=as_json, **options)


def _with_options(command: Callable[..., None]) -> None:
    """Put the options of an export in the place of ``**options``."""
    own = [each for each in signature(command).parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    at = 1 if own[0].annotation is typer.Context else 0
    command.__signature__ = Signature([*own[:at], *EXPORT_OPTIONS, *own[at:]])  # type: ignore[attr-defined]


for _command in (export_command, program):
    _with_options(_command)


def _request(options: dict[str, Any]) -> ExportRequest:
    """The request that options ask for. Raises UserError where they contradict each other."""

    def made(name: str) -> Any:
        if make := _MADE.get(name):
            return make(**{option: options[option] for option in signature(make).parameters})
        return options[name]

    return ExportRequest(**{setting.name: made(setting.name) for setting in fields(ExportRequest)})


def _refuse_stray_options(context: typer.Context) -> None:
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and name not in ("quiet", "verbose"):
            option = f"--{name.removeprefix('as_').replace('_', '-')}"
            raise UserError(
                f"expected options of an export without a subcommand, found {option} before "
                f"{context.invoked_subcommand}; put the subcommand first"
            )
