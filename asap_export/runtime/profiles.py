"""Which optimization profile of an engine takes a request, and what to say where none does."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from asap_export.bundle import GraphInfo, Profile, ShapeRange
from asap_export.errors import UserError

__all__ = ["choose_profile", "longest"]

Shape = tuple[int, ...]


class _Breach(NamedTuple):
    name: str
    axis: int
    found: int
    low: int
    high: int


def choose_profile(
    graph: GraphInfo, profiles: Sequence[Profile], shapes: Mapping[str, Shape], values: Mapping[str, Shape]
) -> int:
    """The number of the narrowest profile that takes inputs of ``shapes`` and shape tensors of ``values``.

    So a decode step runs in the generation profile, though the context profile may allow it too. Raises
    UserError with the limit and what was found where no profile takes them.
    """
    breaches = [list(_breaches(profile, shapes, values)) for profile in profiles]
    fitting = [number for number, found in enumerate(breaches) if not found]
    if fitting:
        return min(fitting, key=lambda number: _size(profiles[number]))
    # Of several that miss as little, the widest has the limit that holds.
    number = min(range(len(profiles)), key=lambda each: (len(breaches[each]), -_size(profiles[each])))
    nearest = breaches[number][0]
    raise UserError(
        f"expected {_title(graph, nearest)} of {nearest.low} to {nearest.high} for this engine, found "
        f"{nearest.found}; shorten the request, or export with other limits (--max-batch, --max-images, "
        "--max-text, --max-new-tokens)"
    )


def longest(profiles: Sequence[Profile], name: str, axis: int) -> int | None:
    """The largest size of an input's axis in any profile; None where none names the input."""
    return max((p.shapes[name].max[axis] for p in profiles if name in p.shapes), default=None)


def _breaches(
    profile: Profile, shapes: Mapping[str, Shape], values: Mapping[str, Shape]
) -> Iterator[_Breach]:
    for ranges, found in ((profile.shapes, shapes), (profile.values, values)):
        for name, allowed in ranges.items():
            for axis, size in enumerate(found.get(name, ())):
                low, high = allowed.min[axis], allowed.max[axis]
                if not low <= size <= high:
                    yield _Breach(name, axis, size, low, high)


def _size(profile: Profile) -> int:
    return sum(_volume(allowed) for allowed in profile.shapes.values())


def _volume(allowed: ShapeRange) -> int:
    return math.prod(allowed.max)


def _title(graph: GraphInfo, breach: _Breach) -> str:
    """The dimension in the graph's words ("batch"), or the input itself where it is a scalar."""
    dims = {tensor.name: tensor.dims for tensor in graph.inputs}.get(breach.name, ())
    dim = dims[breach.axis] if breach.axis < len(dims) else breach.name
    return f"{dim} ({breach.name})" if isinstance(dim, str) and dim != breach.name else breach.name
