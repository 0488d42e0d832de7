"""What pruning saves: FLOPs in both accountings and KV bytes, for one prompt of one row."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from asap_export.errors import UserError
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.pruning.flops import (
    DecoderShape,
    kv_cache_bytes,
    layer_average,
    paper_flops,
    whole_sequence_flops,
)
from asap_export.report.counted import CountedModel, counted_model
from asap_export.spec import ModelSpec

__all__ = ["flops_facts", "flops_table", "saving_facts", "saving_table"]

DEFAULT_TEXT_TOKENS = 64


def flops_facts(
    source: str | Path | None,
    *,
    revision: str | None = None,
    budget: Budget | None = None,
    visual_tokens: int | None = None,
    text_tokens: int = DEFAULT_TEXT_TOKENS,
    dtype: str | None = None,
    pruning: PruningConfig | None = None,
) -> dict[str, Any]:
    """Cost of a prefill before and after pruning, as JSON values.

    ``source`` and ``revision`` are as in ``counted_model``. ``visual_tokens`` defaults to the most that one
    image can have, ``budget`` and ``pruning`` to the bundle's (elsewhere to the defaults of an export), ``dtype``
    to the one the model is stored in. TFLOPs count a multiply-add once; bytes are of the KV cache after prefill.

    Raises UserError where the source cannot be read or the budget does not fit it.
    """
    subject = counted_model(source, revision)
    pruning = pruning or subject.pruning
    visual = subject.max_visual_tokens if visual_tokens is None else visual_tokens
    _check(subject, pruning, visual, text_tokens, budget)
    keep = _keep(subject, pruning, visual, budget)
    return _facts(replace(subject, pruning=pruning, dtype=dtype or subject.dtype), visual, text_tokens, keep)


def saving_facts(
    name: str, spec: ModelSpec, pruning: PruningConfig, budget: Budget, dtype: str
) -> dict[str, Any]:
    """``flops_facts`` of an export: for a prompt with one image of the most visual tokens."""
    visual = spec.max_visual_tokens
    subject = CountedModel(name, DecoderShape.of(spec), visual, dtype, pruning, budget)
    return _facts(subject, visual, DEFAULT_TEXT_TOKENS, _keep(subject, pruning, visual, None))


def _facts(subject: CountedModel, visual: int, text_tokens: int, keep: int) -> dict[str, Any]:
    shape, pruning, dtype, after = subject.shape, subject.pruning, subject.dtype, subject.pruning.prune_after
    dense, pruned = (paper_flops(shape, visual, kept, after) for kept in (visual, keep))
    whole_dense, whole_pruned = (
        whole_sequence_flops(shape, visual, text_tokens, kept, after) for kept in (visual, keep)
    )
    kv_dense, kv_pruned = (
        kv_cache_bytes(shape, visual, text_tokens, kept, dtype, pruning) for kept in (visual, keep)
    )
    return {
        "model": subject.name,
        "layers": shape.layers,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "visual_tokens": visual,
        "text_tokens": text_tokens,
        "prune_after": after,
        "keep": keep,
        "keep_ratio": keep / visual,
        "layer_average": layer_average(visual, keep, shape.layers, after),
        "dense_tflops": dense / 1e12,
        "pruned_tflops": pruned / 1e12,
        "whole_sequence": {"dense_tflops": whole_dense / 1e12, "pruned_tflops": whole_pruned / 1e12},
        "kv_bytes": {
            "dtype": dtype,
            "trim_early_kv": pruning.trim_early_kv,
            "dense": kv_dense,
            "pruned": kv_pruned,
        },
    }


def _check(
    subject: CountedModel, pruning: PruningConfig, visual: int, text_tokens: int, budget: Budget | None
) -> None:
    if visual < 1 or text_tokens < 0:
        found = f"--visual-tokens {visual} and --text-tokens {text_tokens}"
        raise UserError(f"expected at least 1 visual and 0 text tokens, found {found}; raise them")
    if pruning.prune_after >= subject.shape.layers:
        raise UserError(
            f"expected prune-after below the model's {subject.shape.layers} layers, "
            f"found {pruning.prune_after}; lower it"
        )
    most = max(visual, subject.max_visual_tokens)
    wanted = (budget.keep or budget.layer_average or 0) if budget else 0
    if wanted > most:
        name = "--keep" if budget and budget.keep else "--budget"
        raise UserError(f"expected {name} of at most {most} visual tokens, found {wanted:g}; lower it")


def _keep(subject: CountedModel, pruning: PruningConfig, visual: int, budget: Budget | None) -> int:
    if budget is None and not pruning.prunes:
        return visual
    return (budget or subject.budget).keep_for(visual, subject.shape.layers, pruning.prune_after)


def flops_table(facts: dict[str, Any]) -> Group:
    """``flops_facts`` for a terminal."""
    kv, whole = facts["kv_bytes"], facts["whole_sequence"]
    title = Text.assemble(
        (facts["model"], "bold"), f", {facts['layers']} layers of width {facts['hidden_size']}"
    )
    budget = (
        f"{facts['visual_tokens']:,} visual tokens, {facts['keep']:,} kept "
        f"after {facts['prune_after']} layers ({facts['keep_ratio']:.1%}), "
        f"{facts['layer_average']:,.1f} per layer on average"
    )
    table = Table("", box=None, pad_edge=False)
    for column in ("dense", "pruned", "pruned / dense"):
        table.add_column(column, justify="right")
    trimmed = "every layer trimmed" if kv["trim_early_kv"] else "early layers full"
    rows = {
        "image tokens, as the paper counts": (facts["dense_tflops"], facts["pruned_tflops"], _tflops),
        f"with {facts['text_tokens']:,} text tokens and head": (
            whole["dense_tflops"],
            whole["pruned_tflops"],
            _tflops,
        ),
        f"KV cache, {kv['dtype']}, {trimmed}": (kv["dense"], kv["pruned"], _mebibytes),
    }
    for name, (dense, pruned, said) in rows.items():
        table.add_row(name, said(dense), said(pruned), f"{pruned / dense:.1%}")
    note = Text(
        "A multiply-add counts once; prefill of one row; the vision tower is not counted.", style="dim"
    )
    return Group(title, Text(budget), Text(""), table, Text(""), note)


def saving_table(facts: dict[str, Any]) -> Group:
    """``saving_facts`` in three rows of at most 80 columns."""
    whole, kv, visual, keep = (
        facts[name] for name in ("whole_sequence", "kv_bytes", "visual_tokens", "keep")
    )
    table = Table("", box=None, pad_edge=False)
    for column in ("visual tokens", "FLOPs of a prefill", "KV cache"):
        table.add_column(column, justify="right")
    dense, pruned = whole["dense_tflops"], whole["pruned_tflops"]
    unit, name = (1.0, "TFLOPs") if pruned >= 0.01 else (1e3, "GFLOPs")
    table.add_row("dense", f"{visual:,}", f"{dense * unit:,.3f} {name}", _mebibytes(kv["dense"]))
    if keep < visual:
        table.add_row("pruned", f"{keep:,}", f"{pruned * unit:,.3f} {name}", _mebibytes(kv["pruned"]))
        parts = (keep / visual, pruned / dense, kv["pruned"] / kv["dense"])
        table.add_row("pruned / dense", *(f"{part:.1%}" for part in parts))
    said = f"cut after layer {facts['prune_after']} of {facts['layers']}" if keep < visual else "no cut"
    prompt = f"one image, the largest, and {facts['text_tokens']} text tokens"
    return Group(table, Text(f"for {prompt}; {said}", style="dim"))


def _tflops(value: float) -> str:
    return f"{value:.3f} TFLOPs" if value >= 0.01 else f"{value * 1e3:.3f} GFLOPs"


def _mebibytes(value: int) -> str:
    return f"{value / 2**20:,.2f} MiB"
