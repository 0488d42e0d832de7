"""Which engines an export builds, for which machines, and whether the memory suffices."""

from dataclasses import dataclass
from typing import NamedTuple

from asap_export.bundle import Limits
from asap_export.bundle.manifest import Flavor
from asap_export.engine import (
    DecoderPart,
    WeightSizes,
    check_memory,
    decoder_parts,
    find_flavor,
    peak_memory,
    target_capabilities,
)
from asap_export.errors import UserError
from asap_export.exporter.request import ExportRequest
from asap_export.exporter.weights import WeightPlan
from asap_export.memory import available_memory
from asap_export.spec import ModelSpec

__all__ = ["EnginePlan", "engine_target", "plan_engines"]


class Target(NamedTuple):
    """The TensorRT that builds, and the machines that it builds for."""

    flavor: Flavor
    compute_capabilities: tuple[str, ...]


@dataclass(frozen=True)
class EnginePlan:
    """Which engines are built. ``memory``: bytes that building each takes at its peak, by its title."""

    flavor: Flavor
    compute_capabilities: tuple[str, ...]
    parts: tuple[DecoderPart, ...]  # of the decoder
    memory: dict[str, int]


def engine_target(request: ExportRequest) -> Target | None:
    """What engines are built with and for, None where none are. Raises UserError where this machine cannot."""
    if request.engine != "trt":
        return None
    flavor = find_flavor(request.flavor)
    return Target(flavor, target_capabilities(flavor, request.compute_capabilities))


def plan_engines(
    request: ExportRequest, target: Target | None, spec: ModelSpec, limits: Limits, weights: WeightPlan
) -> EnginePlan | None:
    """The engines of a request. Raises UserError where the decoder cannot be split as asked for, or building takes
    more memory than there is."""
    if target is None:
        return None
    wanted = request.layers_per_engine
    if wanted is not None and not 1 <= wanted < spec.layers:
        raise UserError(
            f"expected --layers-per-engine of 1 to {spec.layers - 1} for {spec.layers} layers, found {wanted}; "
            "leave it out"
        )
    cut = request.pruning.prune_after if request.pruning.prunes else None
    parts = decoder_parts(spec.layers, cut, wanted, request.single_engine)
    sizes = WeightSizes(weights.sizes, spec.layers, cut, request.quantization is not None, limits.max_batch)
    if request.check_memory:
        check_memory(sizes, parts, available_memory())
    return EnginePlan(*target, parts, peak_memory(sizes, parts))
