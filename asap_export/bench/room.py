"""Whether all contenders fit into memory at once, estimated before any of them starts."""

from collections.abc import Sequence
from pathlib import Path

from asap_export.bench.records import Contender
from asap_export.bundle import Bundle
from asap_export.pruning.flops import DTYPE_BYTES
from asap_export.runtime.memory import memory_needed, scores_in_blocks
from asap_export.runtime.providers import weight_memory
from asap_export.spec import ModelSpec

__all__ = ["needed_by", "needed_together"]

_FLOAT = 4  # bytes; every contender computes in float32
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
    blocks = contender.kind == "bundle" and scores_in_blocks(Bundle.open(contender.source).manifest)
    return memory_needed(spec, 1, tokens, 0, blocks) - _cache(spec, tokens)


def _cache(spec: ModelSpec, tokens: int) -> int:
    return 2 * _FLOAT * spec.layers * spec.kv_heads * spec.head_dim * tokens


def _weights(contender: Contender, spec: ModelSpec) -> int:
    if contender.kind == "bundle":
        return weight_memory(Bundle.open(contender.source))[1]
    converted = contender.kind == "openvino"
    files = Path(contender.source).glob("*.bin" if converted else "*.safetensors")
    stored = sum(file.stat().st_size for file in files)
    return stored if converted else stored * _FLOAT // DTYPE_BYTES[spec.dtype]
