"""The largest request of a bundle, and how many visual tokens it keeps by default."""

from asap_export.bundle import Limits
from asap_export.bundle.presets import find_preset
from asap_export.checkpoint.checkpoint import Outline
from asap_export.engine import USUAL, default_limits
from asap_export.errors import UserError
from asap_export.exporter.request import ExportRequest
from asap_export.pruning.config import DEFAULT_KEEP_RATIO, Budget
from asap_export.spec import ModelSpec

__all__ = ["budget_of", "limits_of"]


def limits_of(request: ExportRequest, outline: Outline) -> Limits:
    """What is asked for; the rest comes from the preset where the checkpoint is that one from the hub."""
    names = ("max_batch", "max_images", "max_text", "max_new_tokens")
    given = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    name, revision = outline.place.name, outline.place.revision
    preset = find_preset(name) if revision is not None else None
    usual = preset.limits if preset and preset.model == name else USUAL
    return default_limits(outline.spec, usual, **given)


def budget_of(request: ExportRequest, spec: ModelSpec, limits: Limits) -> Budget:
    """The bundle's default budget, checked against the largest prompt that the limits allow."""
    pruning = request.pruning
    if not pruning.prunes:
        if request.budget is not None:
            raise UserError(
                "expected no budget with --dense, which keeps every visual token; give only one of them"
            )
        return Budget(ratio=1.0)
    if pruning.method == "random":
        raise UserError("expected a method that a graph can hold (asap, fastv or none), found random")
    if pruning.prune_after >= spec.layers:
        raise UserError(
            f"expected --prune-after below the model's {spec.layers} layers, found {pruning.prune_after}"
        )
    budget = request.budget or Budget(ratio=DEFAULT_KEEP_RATIO)
    largest = limits.max_images * spec.max_visual_tokens
    wanted = budget.keep or budget.layer_average or 0
    if wanted > largest:
        flag = "--keep" if budget.keep else "--budget"
        images = "an image" if limits.max_images == 1 else f"{limits.max_images} images"
        raise UserError(
            f"expected {flag} of at most {largest}, the most visual tokens that {images} of this checkpoint can "
            f"carry, found {wanted:g}; lower it, or use --dense to keep all"
        )
    budget.keep_for(largest, spec.layers, pruning.prune_after)
    return budget
