"""Optimization profiles: for every input of every graph the smallest, expected and largest shape.

All graphs draw on one table of named dimensions, so that what one graph gives, the next one takes. Integers
only, no TensorRT.
"""

from typing import NamedTuple

from asap_export.bundle import GraphInfo, Limits, Profile, ShapeRange
from asap_export.engine.limits import largest_cache, largest_kept, sequence_limit
from asap_export.model.anyres import TileGeometry, max_tiles
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.spec import ModelSpec

__all__ = ["Range", "dimension_ranges", "graph_profiles"]

_TURNS = 4  # of a conversation under the bundle's own budget that a cache has room for
_KEPT_ON_REQUEST = 4096  # tokens of a prompt that a request may keep where the bundle's budget is smaller
_USUAL_TEXT = 64  # tokens of a question, its chat template included

# Tokens in caches, by layers: those before the cut may keep what others lose.
_PASTS = {"past_sequence", "early_past_sequence"}


class Range(NamedTuple):
    """Smallest, expected and largest value of one dimension."""

    min: int
    opt: int
    max: int

    def __add__(self, other: "Range") -> "Range":  # type: ignore[override]  # sums, not concatenation
        return Range(self.min + other.min, self.opt + other.opt, self.max + other.max)


class _Turns(NamedTuple):
    """Tokens that usually survive the cut, those that may, and those that a cache holds."""

    usual: int
    kept: int
    cached: int


def graph_profiles(
    graph: GraphInfo,
    spec: ModelSpec,
    pruning: PruningConfig,
    budget: Budget,
    limits: Limits,
    quantized: bool = False,
) -> tuple[Profile, ...]:
    """The profiles of one graph: those of ``dimension_ranges`` for a graph with a cache, "request" for others.

    ``limits`` must have passed ``check_limits``.
    """
    tables = dimension_ranges(spec, pruning, budget, limits, quantized)
    has_cache = any(not _PASTS.isdisjoint(tensor.dims) for tensor in graph.inputs)
    if not has_cache:
        return (_profile("request", graph, tables["context"]),)
    return tuple(_profile(name, graph, table) for name, table in tables.items())


def dimension_ranges(
    spec: ModelSpec, pruning: PruningConfig, budget: Budget, limits: Limits, quantized: bool = False
) -> dict[str, dict[str, Range]]:
    """The range of every named dimension, and of the value of ``kept_length``, per profile.

    "context" takes a prompt or a later turn: 1 to all new tokens behind a cache that may be empty.
    "generation" takes one new token behind a cache. It admits two rows even where ``max_batch`` is 1: were a
    step fixed to a single row, TensorRT would lay out the weights anew for it, and hold most of them twice.
    With ``quantized`` weights it is the other way round: those of a single row's step are the prefill's.

    These two are planned for the bundle's own budget. A request may raise it, up to pruning nothing: for what
    then exceeds them there are "dense_context" and "dense_generation", planned for an image of which every token
    stays. A bundle that does not prune, or whose budget admits as much, has no need of them.

    The positions of the model bound a cache, but a checkpoint of 32,768 positions would reserve gigabytes of
    masks for conversations that nobody has. So a cache holds, within ``largest_cache``, four turns at the
    bundle's own budget, or, in the dense profiles, one turn of which nothing is pruned, if that is more, with
    their answers. Layers that keep pruned tokens (``trim_early_kv`` off) hold four turns unpruned.
    In a batch, padding takes places in the cache too. For the same reason what a request may keep is bounded:
    by 4,096 tokens, or by what the bundle's own budget keeps, if that is more.
    """
    visual_opt, text_opt = spec.max_visual_tokens, min(_USUAL_TEXT, limits.max_text)
    images = limits.max_batch * limits.max_images
    tiles = max_tiles(TileGeometry.of(spec))
    shared = {
        "batch": Range(1, 1, limits.max_batch),
        "tiles": Range(1, tiles, images * tiles),
        "visual_tokens": Range(0, visual_opt, images * spec.max_visual_tokens),
    }
    step_batch = {"batch": Range(1, 1, limits.max_batch if quantized else max(2, limits.max_batch))}
    whole_turn = sequence_limit(limits, spec) + limits.max_new_tokens
    sequence = Range(1, visual_opt + text_opt, sequence_limit(limits, spec))
    answer = limits.max_new_tokens // 2
    early = _up_to(visual_opt + text_opt + answer, min(largest_cache(spec, pruning), _TURNS * whole_turn))
    tables: dict[str, dict[str, Range]] = {}
    for prefix, turns in _turns(spec, pruning, budget, limits).items():
        kept, past = _up_to(turns.usual, turns.kept), _up_to(turns.usual + answer, turns.cached)
        context = _decoder(sequence, kept, past._replace(min=0, opt=0), early._replace(min=0, opt=0))
        step = _decoder(Range(1, 1, 1), Range(1, 1, 1), past, early)
        tables |= {f"{prefix}context": shared | context, f"{prefix}generation": shared | step | step_batch}
    return tables


def _turns(spec: ModelSpec, pruning: PruningConfig, budget: Budget, limits: Limits) -> dict[str, _Turns]:
    """Turns under the bundle's own budget, and "dense_" ones where a request may keep more than that."""
    kept_most, most_past = largest_kept(limits, spec, pruning, budget), largest_cache(spec, pruning)
    sequence_max, text = sequence_limit(limits, spec), min(_USUAL_TEXT, limits.max_text)
    visual = spec.max_visual_tokens
    keep = budget.keep_for(visual, spec.layers, pruning.prune_after) if pruning.prunes else visual
    own = _Turns(keep + text, kept_most, min(most_past, _TURNS * (kept_most + limits.max_new_tokens)))
    dense = _Turns(
        visual + text,
        min(sequence_max, max(kept_most, _KEPT_ON_REQUEST)),
        max(own.cached, min(most_past, sequence_max + limits.max_new_tokens)),
    )
    return {"": own, "dense_": dense} if dense.kept > own.kept else {"": own}


def _up_to(usual: int, most: int) -> Range:
    return Range(1, min(usual, most), most)


def _decoder(sequence: Range, kept: Range, past: Range, early_past: Range) -> dict[str, Range]:
    return {
        "sequence": sequence,
        "kept_length": kept,
        "kept_sequence": kept,
        "past_sequence": past,
        "total_sequence": past + sequence,
        "early_past_sequence": early_past,
        "early_total_sequence": early_past + sequence,
    }


def _profile(name: str, graph: GraphInfo, ranges: dict[str, Range]) -> Profile:
    """Shapes for tensors; for scalars, which are shape tensors, the range of their value."""
    shapes, values = {}, {}
    for tensor in graph.inputs:
        if not tensor.dims:
            values[tensor.name] = _shape_range([ranges[tensor.name]])
            continue
        dims = [Range(dim, dim, dim) if isinstance(dim, int) else ranges[dim] for dim in tensor.dims]
        shapes[tensor.name] = _shape_range(dims)
    return Profile(name, shapes, values)


def _shape_range(dims: list[Range]) -> ShapeRange:
    smallest, expected, largest = zip(*dims, strict=True)
    return ShapeRange(smallest, expected, largest)
