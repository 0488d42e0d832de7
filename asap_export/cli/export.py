"""``asap-export`` without a subcommand: a checkpoint becomes a bundle."""

from pathlib import Path
from typing import Annotated, Literal, cast, get_args

import typer

from asap_export.cli.options import (
    PRUNING,
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
from asap_export.cli.summary import print_summary
from asap_export.errors import UserError
from asap_export.pruning.config import PruningConfig
from asap_export.spec import BLOCK_SIZES, DEFAULT_CPU_PASSES, CpuPass, Quantization

__all__ = ["export_command"]

_LIMITS, _ENGINES = "Limits of a request (the checkpoint's own by default)", "Engines"


def export_command(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="SOURCE", help="Folder or hub id; the built-in demo by default."),
    ] = None,
    revision: Revision = None,
    engine: Annotated[
        Literal["ort", "trt"],
        typer.Option("--engine", help="ONNX graphs only, or TensorRT engines with them."),
    ] = "ort",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="The bundle; by default named after the model."
        ),
    ] = None,
    dtype: Annotated[
        Literal["fp32", "fp16", "bf16"] | None,
        typer.Option("--dtype", help="Of weights and arithmetic; as stored by default."),
    ] = None,
    quantize: Annotated[
        Literal["int4"] | None,
        typer.Option("--quantize", help="Weights of the decoder's linear layers in 4 bits."),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option("--block-size", help="Weights that share a scale with --quantize: 32, 64 or 128; 64."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bundle that is there.")] = False,
    keep: Keep = None,
    keep_ratio: KeepRatio = None,
    budget: LayerAverage = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Do not prune: the baseline.", rich_help_panel=PRUNING)
    ] = False,
    method: Annotated[
        Literal["asap", "fastv"] | None,
        typer.Option("--method", help="asap by default.", rich_help_panel=PRUNING),
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
            help="Drop pruned tokens from the caches of those layers too; on.",
            rich_help_panel=PRUNING,
        ),
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option("--max-batch", help="Prompts at once.", rich_help_panel=_LIMITS)
    ] = None,
    max_images: Annotated[
        int | None, typer.Option("--max-images", help="Images of one prompt.", rich_help_panel=_LIMITS)
    ] = None,
    max_text: Annotated[
        int | None, typer.Option("--max-text", help="Text tokens of one prompt.", rich_help_panel=_LIMITS)
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", help="Tokens of one answer.", rich_help_panel=_LIMITS)
    ] = None,
    weights: Annotated[
        Literal["auto", "link", "copy"],
        typer.Option("--weights", help="Hard-link or copy unconverted weights; auto links above 2 GB."),
    ] = "auto",
    cpu_passes: Annotated[
        str | None,
        typer.Option(
            "--cpu-passes",
            metavar="LIST",
            help="What makes the decoder's form for ONNX Runtime on a CPU: fused-attention,blockwise-soft-mask,"
            "skipped-cut by default, int8-activations with --quantize int4; or none.",
        ),
    ] = None,
    flavor: Annotated[
        Literal["auto", "tensorrt", "tensorrt_rtx"],
        typer.Option(
            "--flavor", help="Which TensorRT; auto takes what is installed.", rich_help_panel=_ENGINES
        ),
    ] = "auto",
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            "--compute-capability",
            metavar="X.Y",
            help="GPU to build for, repeatable (tensorrt_rtx); all known from 8.6 by default.",
            rich_help_panel=_ENGINES,
        ),
    ] = None,
    layers_per_engine: Annotated[
        int | None,
        typer.Option(
            "--layers-per-engine",
            metavar="N",
            help="Several engines for the decoder, which take less memory to build; one by default.",
            rich_help_panel=_ENGINES,
        ),
    ] = None,
    check_memory: Annotated[
        bool,
        typer.Option(
            "--check-memory/--no-check-memory",
            help="Refuse builds that need more memory than there is; on.",
            rich_help_panel=_ENGINES,
        ),
    ] = True,
) -> None:
    """LLaVA-NeXT and LLaVA-1.5 to ONNX and TensorRT, with ASAP visual-token pruning inside the language model.

    Without a subcommand: export a checkpoint to a bundle.
    """
    if context.invoked_subcommand is not None:
        _refuse_stray_options(context)
        return
    given = given_pruning(
        dense,
        {
            "method": method,
            "score": score,
            "lambda_max": lambda_max,
            "threshold": threshold,
            "merge": merge,
            "bidirectional": bimask,
            "prune_after": prune_after,
            "trim_early_kv": trim_early_kv,
        },
    )
    pruning = PruningConfig(method="none") if dense else PruningConfig(**given)
    tokens = budget_of(keep, keep_ratio, budget)
    quantization = _quantization(quantize, block_size, weights)
    if engine == "ort":
        _refuse_engine_options(
            {
                "--compute-capability": compute_capability,
                "--flavor": flavor != "auto",
                "--layers-per-engine": layers_per_engine is not None,
                "--no-check-memory": not check_memory,
            }
        )

    from asap_export.exporter import ExportRequest, export  # torch and transformers: seconds to import

    request = ExportRequest(
        model=model,
        revision=revision,
        output=output,
        engine=engine,
        dtype=dtype,
        weights=weights,
        quantization=quantization,
        pruning=pruning,
        cpu_passes=_cpu_passes(cpu_passes, quantized=quantize is not None and engine == "ort"),
        budget=tokens,
        max_batch=max_batch,
        max_images=max_images,
        max_text=max_text,
        max_new_tokens=max_new_tokens,
        flavor=flavor,
        compute_capabilities=tuple(compute_capability or ()),
        layers_per_engine=layers_per_engine,
        check_memory=check_memory,
        overwrite=overwrite,
    )
    with shown_progress() as progress:
        exported = export(request, progress)
    print_summary(
        exported.bundle,
        exported.placed,
        exported.written,
        template_refused=exported.template_refused,
        tokenizer_refused=exported.tokenizer_refused,
        passes_refused=exported.passes_refused,
    )


def _refuse_engine_options(given: dict[str, object]) -> None:
    for option in (name for name, value in given.items() if value):
        raise UserError(f"expected {option} with --engine trt, found --engine ort; change one of them")


def _refuse_stray_options(context: typer.Context) -> None:
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise UserError(
                f"expected options of an export without a subcommand, found {option} before "
                f"{context.invoked_subcommand}; put the subcommand first"
            )


def _cpu_passes(names: str | None, quantized: bool) -> tuple[CpuPass, ...]:
    """The passes that --cpu-passes names; ``quantized``: whether there are products that read 4-bit weights."""
    if names is None:
        return DEFAULT_CPU_PASSES
    if names == "none":
        return ()
    chosen, known = names.split(","), get_args(CpuPass)
    if unknown := [name for name in chosen if name not in known]:
        raise UserError(f"expected --cpu-passes among {', '.join(known)}, or none; found {unknown[0]!r}")
    if "int8-activations" in chosen and not quantized:
        raise UserError(
            "expected int8-activations with --quantize int4 and --engine ort, found it without; it would do "
            "nothing, leave it out"
        )
    return tuple(cast(CpuPass, name) for name in known if name in chosen)


def _quantization(quantize: str | None, block_size: int | None, weights: str) -> Quantization | None:
    """The request's quantization; an option that would do nothing is refused."""
    if quantize is None:
        if block_size is not None:
            raise UserError("expected --block-size with --quantize, found it alone; add --quantize int4")
        return None
    if weights != "auto":
        raise UserError(
            f"expected no --weights {weights} with --quantize, which writes every weight anew, found it; "
            "leave one of them out"
        )
    if block_size is not None and block_size not in BLOCK_SIZES:
        raise UserError(f"expected --block-size 32, 64 or 128, found {block_size}; change it")
    return Quantization() if block_size is None else Quantization(block_size=block_size)
