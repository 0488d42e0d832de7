"""Whether all contenders fit into memory at once, estimated before any of them starts."""

from collections.abc import Sequence
from pathlib import Path

from asap_export.bench.records import Contender
from asap_export.bundle import Bundle
from asap_export.runtime.memory import memory_needed
from asap_export.runtime.providers import weight_memory
from asap_export.spec import ModelSpec

__all__ = ["needed_by", "needed_together"]

_FLOAT = 4  # bytes; every contender computes in float32
_PROGRAM = 300_000_000  # bytes of Python and its libraries


def needed_by(contender: Contender, spec: ModelSpec, tokens: int, longest_cache: int) -> int:
    """Bytes that a contender takes at its peak, at most about: weights, a dense prefill, its longest cache."""
    return _resting(contender, spec, longest_cache) + memory_needed(spec, 1, tokens, 0)


def needed_together(contenders: Sequence[Contender], spec: ModelSpec, tokens: int, longest_cache: int) -> int:
    """Bytes of all at once, of which one works. ONNX Runtime keeps what a prefill took for the next one."""
    run = memory_needed(spec, 1, tokens, 0)
    resting = sum(_resting(contender, spec, longest_cache) for contender in contenders)
    keeping = sum(contender.kind == "bundle" for contender in contenders)
    return resting + run * max(1, keeping)


def _resting(contender: Contender, spec: ModelSpec, longest_cache: int) -> int:
    caches = 2 * _FLOAT * spec.layers * spec.kv_heads * spec.head_dim * longest_cache
    return _PROGRAM + _weights(contender, spec) + caches


def _weights(contender: Contender, spec: ModelSpec) -> int:
    if contender.kind == "bundle":
        return weight_memory(Bundle.open(contender.source))[1]
    suffix, wider = (".bin", 1) if contender.kind == "openvino" else (".safetensors", _FLOAT)
    stored = sum(file.stat().st_size for file in Path(contender.source or ".").glob(f"*{suffix}"))
    return stored * wider // (1 if contender.kind == "openvino" else {"fp32": 4}.get(spec.dtype, 2))
