"""What part of this machine's rates a contender reaches: of a product's in a prefill, of memory's in a step."""

from collections.abc import Sequence
from typing import Any

from asap_export.bench.records import Contender
from asap_export.bench.statistics import spread
from asap_export.pruning.flops import DecoderShape

__all__ = ["of_bandwidth", "of_rate", "rate_facts", "step_bytes"]

Facts = dict[str, Any]

# Bytes of a weight by the last word of a contender's dtype; llama.cpp's with their scales, others' without.
_WEIGHT_BYTES = {
    "fp32": 4, "f32": 4, "fp16": 2, "bf16": 2, "int8": 1, "int4": 0.5, "q8_0": 34 / 32, "q4_0": 18 / 32,
}  # fmt: skip


def rate_facts(rounds: Sequence[Facts]) -> dict[str, Facts | None]:
    """Five numbers of each of the machine's rates (``MachineReference``) over the rounds."""
    names = rounds[0]["rates"] if rounds else ()
    found = {name: [sample["rates"][name] for sample in rounds] for name in names}
    return {name: spread([value for value in values if value is not None]) for name, values in found.items()}


def of_rate(contender: Contender, flops_per_second: float | None, rates: Facts) -> float | None:
    """A prefill's operations/s over those of a matrix product in what the contender computes in."""
    limit = rates.get(contender.computes)
    return flops_per_second / limit["median"] if flops_per_second and limit else None


def step_bytes(contender: Contender, shape: DecoderShape, kv_bytes: int | None) -> int | None:
    """Bytes that a decode step has to read at least: every weight of the decoder and the head once, and the
    cache."""
    if kv_bytes is None:
        return None
    d, queries, keys = shape.hidden_size, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = d * (2 * queries + 2 * keys) + 3 * d * shape.intermediate_size
    weights = shape.layers * layer + d * shape.vocab_size
    return kv_bytes + round(weights * _WEIGHT_BYTES[contender.dtype.split()[-1]])


def of_bandwidth(nbytes: int | None, seconds: Facts | None, rates: Facts) -> float | None:
    """A step's bytes/s over those that come from memory."""
    limit = rates.get("memory")
    return nbytes / seconds["median"] / limit["median"] if nbytes and seconds and limit else None
