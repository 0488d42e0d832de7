"""Which contenders fit into memory, alone and at once, estimated before any of them starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asap_export.bench.records import Contender, Workload
from asap_export.bundle import Bundle
from asap_export.errors import UserError
from asap_export.memory import available_memory, gigabytes
from asap_export.pruning.flops import DTYPE_BYTES
from asap_export.runtime.providers import weight_memory
from asap_export.runtime.run_memory import memory_needed, scores_in_blocks
from asap_export.spec import ModelSpec

__all__ = ["fitting", "fitting_curve", "needed_by", "needed_together"]

_FLOAT = 4  # bytes; what computes in fewer is counted as float32 too, but for its weights
_CONVERTED = {"openvino-genai": "*.bin", "llama.cpp": "*.gguf"}  # and the files of their weights
_PROGRAM = 300_000_000  # bytes of Python and its libraries


def needed_by(contender: Contender, spec: ModelSpec, tokens: int, longest_cache: int) -> int:
    """Bytes that a contender takes at most, about: weights, and a dense prefill or its longest cache."""
    return _PROGRAM + _weights(contender, spec) + _run(contender, spec, max(tokens, longest_cache))


def needed_together(contenders: Sequence[Contender], spec: ModelSpec, tokens: int, longest_cache: int) -> int:
    """Bytes of all at once, of which one works.

    ONNX Runtime keeps what a prefill took, and makes the caches of later ones in it; the others keep a cache only.
    """
    total = passing = 0
    for contender in contenders:
        run = _run(contender, spec, max(tokens, longest_cache))
        kept = run if contender.kind == "bundle" else _cache(spec, longest_cache)
        total += _PROGRAM + _weights(contender, spec) + kept
        passing = max(passing, run - kept)
    return total + passing


def _run(contender: Contender, spec: ModelSpec, tokens: int) -> int:
    """Of a prefill, whose cache has no predecessor."""
    blocks = contender.kind in _CONVERTED or (
        contender.kind == "bundle" and scores_in_blocks(Bundle.open(contender.source).manifest)
    )
    return memory_needed(spec, 1, tokens, 0, blocks) - _cache(spec, tokens)


def _cache(spec: ModelSpec, tokens: int) -> int:
    return 2 * _FLOAT * spec.layers * spec.kv_heads * spec.head_dim * tokens


def _weights(contender: Contender, spec: ModelSpec) -> int:
    if contender.kind == "bundle":
        return weight_memory(Bundle.open(contender.source))[1]
    if contender.kind in _CONVERTED:  # as stored, and as its library packs them
        return 2 * _stored(contender.source, _CONVERTED[contender.kind])
    computed = DTYPE_BYTES.get(contender.dtype, _FLOAT)
    return _stored(contender.source, "*.safetensors") * computed // DTYPE_BYTES[spec.dtype]


def _stored(source: str, pattern: str) -> int:
    return sum(file.stat().st_size for file in Path(source).glob(pattern))


def fitting(
    cache_lengths: Sequence[int],
    contenders: Sequence[Contender],
    spec: ModelSpec,
    workload: Workload,
    skipped: list[dict[str, Any]],
) -> tuple[list[Contender], bool, str | None]:
    """Contenders that memory can hold one by one, whether each round starts new processes, and the words for it.

    Those it cannot hold go to ``skipped``, with the reason. Raises UserError where none is left.
    """
    tokens, longest = workload.visual_tokens + workload.text_tokens, max(cache_lengths, default=0)
    available = available_memory()
    taking_part = []
    for contender in contenders:
        needed = needed_by(contender, spec, tokens, longest)
        if needed > available:
            reason = f"needs about {gigabytes(needed)} of memory, and {gigabytes(available)} is free"
            skipped.append({"name": contender.name, "reason": reason})
        else:
            taking_part.append(contender)
    if not taking_part:
        raise UserError(
            f"expected a contender that {gigabytes(available)} of free memory can hold, found none; use a smaller "
            "model, fewer --visual-tokens or shorter --cache-lengths"
        )
    together = needed_together(taking_part, spec, tokens, longest)
    if together <= available:
        return taking_part, False, None
    note = (
        f"all contenders at once would take about {gigabytes(together)} of memory and {gigabytes(available)} is "
        "free, so every round started new processes, one at a time"
    )
    return taking_part, True, note


def fitting_curve(
    curve: Sequence[Workload], contenders: Sequence[Contender], spec: ModelSpec, skipped: list[dict[str, Any]]
) -> list[Workload]:
    """Workloads that memory can hold, all contenders of the curve at rest beside the one that works."""
    taken, available = [], available_memory()
    for workload in curve:
        needed = needed_together(contenders, spec, workload.visual_tokens + workload.text_tokens, 0)
        if needed <= available:
            taken.append(workload)
            continue
        reason = f"needs about {gigabytes(needed)} of memory, and {gigabytes(available)} is free"
        skipped.append({"name": f"curve at {workload.visual_tokens:,} visual tokens", "reason": reason})
    return taken
