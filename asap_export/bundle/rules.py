"""What must hold between the values of a manifest that each are what the definition says."""

from collections.abc import Sequence
from typing import Any

from asap_export.bundle.errors import BundleError, manifest_error, member
from asap_export.bundle.records import EngineInfo, EnginePart, ShapeRange
from asap_export.model.anyres import TileGeometry, max_visual_tokens
from asap_export.pruning.config import PruningConfig
from asap_export.spec import ModelSpec, Quantization

__all__ = ["check_budget", "check_rules"]

_MOST_VISUAL_TOKENS = 1 << 24  # of one image: no index of them fills the memory


def check_budget(budget: dict[str, Any]) -> None:
    """Raise BundleError unless exactly one budget is set; the record's own words are an option's."""
    given = [name for name, value in budget.items() if value is not None]
    if len(given) != 1:
        raise _broken("$.budget", "exactly one budget", " and ".join(sorted(given)) or "none")


def check_rules(
    model: ModelSpec, pruning: PruningConfig, quantization: Quantization | None, engines: Sequence[EngineInfo]
) -> None:
    """Raise BundleError with the code inconsistent for the first rule broken; C++ has the same rules."""
    if model.heads % model.kv_heads:
        raise _broken("$.model.kv_heads", f"a divisor of {model.heads} heads", str(model.kv_heads))
    _check_tiles(TileGeometry.of(model))
    if pruning.prunes and pruning.prune_after >= model.layers:
        raise _broken(
            "$.pruning.prune_after", f"less than the model's {model.layers} layers", str(pruning.prune_after)
        )
    if quantization is not None and (quantization.bits == 8) != (quantization.block_size is None):
        raise _broken(
            "$.quantization.block_size",
            "a number for 4 bits, and null for 8",
            str(quantization.block_size or "null"),
        )
    for number, engine in enumerate(engines):
        _check_engine(engine, model.layers, member("$.engines", number))


def _check_tiles(geometry: TileGeometry) -> None:
    tile = geometry.tile_size
    if geometry.patch_size > tile:
        raise _broken("$.model.patch_size", f"at most the tile's {tile} pixels", str(geometry.patch_size))
    for number, pinpoint in enumerate(geometry.grid_pinpoints):
        if min(pinpoint) < tile:
            place = member("$.model.grid_pinpoints", number)
            raise _broken(place, f"no side shorter than the tile's {tile} pixels", str(list(pinpoint)))
    most = max_visual_tokens(geometry)
    if most > _MOST_VISUAL_TOKENS:
        raise _broken("$.model", f"at most {_MOST_VISUAL_TOKENS} visual tokens of one image", str(most))


def _check_engine(engine: EngineInfo, layers: int, place: str) -> None:
    for number, profile in enumerate(engine.profiles):
        profile_place = member(f"{place}.profiles", number)
        for table, ranges in (("shapes", profile.shapes), ("values", profile.values)):
            for name in sorted(ranges):
                _check_range(ranges[name], member(f"{profile_place}.{table}", name))
    if engine.part is not None:
        _check_part(engine.part, layers, f"{place}.part")


def _check_range(shapes: ShapeRange, place: str) -> None:
    if not len(shapes.min) == len(shapes.opt) == len(shapes.max):
        raise _broken(place, "shapes of one rank", "several")
    if not all(a <= b <= c for a, b, c in zip(shapes.min, shapes.opt, shapes.max, strict=True)):
        raise _broken(place, "min, opt and max in order", "others")


def _check_part(part: EnginePart, layers: int, place: str) -> None:
    if part.number >= part.of:
        raise _broken(f"{place}.number", f"less than {part.of}, the number of parts", str(part.number))
    first, last = part.layers
    if not first <= last < layers:
        raise _broken(f"{place}.layers", f"the first and last of {layers} layers", str(list(part.layers)))


def _broken(place: str, expected: str, found: str) -> BundleError:
    return manifest_error("inconsistent", place, expected, found)
