"""What the samples say: times, memory, FLOPs, and every pruned contender beside its dense baseline."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from asap_export.bench.limits import of_bandwidth, of_rate, step_bytes
from asap_export.bench.records import OWN_PROMPT, PARTS, Contender, Workload
from asap_export.bench.schedule import Samples
from asap_export.bench.statistics import ratio, spread
from asap_export.pruning.flops import DecoderShape, whole_sequence_flops

__all__ = ["comparisons", "contender_facts", "curve_facts", "flops_of", "round_medians"]

Facts = dict[str, Any]


def flops_of(contender: Contender, workload: Workload, shape: DecoderShape) -> int:
    """Multiply-adds of the decoder's prefill, text and head included (``pruning/flops.py``); two floating-point
    operations each."""
    keep = workload.keep if contender.prunes else workload.visual_tokens
    after = int(contender.pruning["prune_after"])
    return whole_sequence_flops(shape, workload.visual_tokens, workload.text_tokens, keep, after)


def contender_facts(samples: Samples, workload: Workload, shape: DecoderShape, rates: Facts) -> Facts:
    """One contender as JSON values: who it is, five numbers of everything, the part that it reaches of the
    machine's ``rates``, and all samples."""
    contender, rounds = samples.contender, samples.prefill
    seconds = {part: spread([sample["seconds"][part] for sample in rounds]) for part in PARTS}
    first = rounds[0] if rounds else {}
    if rounds and contender.kind in OWN_PROMPT:  # its prompt is longer than asked for, so it does more
        workload = replace(workload, visual_tokens=first["cache_length"] - workload.text_tokens)
    flops = flops_of(contender, workload, shape)
    prefill = seconds["prefill"]
    flops_per_second = 2 * flops / prefill["median"] if prefill else None
    behind_prompt = _decode(rounds, first.get("cache_length"))
    nbytes = step_bytes(contender, shape, first.get("kv_bytes"))
    return {
        **{name: value for name, value in asdict(contender).items() if name not in ("source", "program")},
        "source": Path(contender.source).name,  # places on this machine are nobody else's business
        "failed": samples.failed,
        "note": first.get("note"),
        "seconds": {
            **seconds,
            "first_token": spread([sum(sample["seconds"].values()) for sample in rounds]),
        },
        "decode_seconds": {
            "prompt": behind_prompt,
            **{str(length): _decode(found, length) for length, found in samples.decode.items()},
        },
        "memory": {
            "weights": samples.weights,
            "prefill_peak": spread([sample["peak"] for sample in rounds if sample["peak"]]),
            "prefill_above_weights": spread(_above(rounds)),
        },
        "kv_bytes": first.get("kv_bytes"),
        "kv_held_bytes": first.get("kv_held_bytes"),
        "multiply_adds": flops,
        "flops_per_second": flops_per_second,
        "of_rate": of_rate(contender, flops_per_second, rates),
        "step_bytes": nbytes,
        "of_bandwidth": of_bandwidth(nbytes, behind_prompt, rates),
        "samples": {
            "prefill": rounds,
            "decode": {str(length): found for length, found in samples.decode.items()},
        },
    }


def _decode(rounds: Sequence[Facts], length: int | None) -> Facts | None:
    found = spread(round_medians(rounds))
    return found and {"cache_length": length, **found}


def round_medians(rounds: Sequence[Facts]) -> list[float]:
    """The median token of each round that decoded any."""
    spreads = (spread(sample["decode"]) for sample in rounds)
    return [found["median"] for found in spreads if found]


def _above(rounds: Sequence[Facts]) -> list[int]:
    found = (sample["peak_above_weights"] for sample in rounds)
    return [value for value in found if value is not None]


def comparisons(measured: Sequence[Samples], workload: Workload, shape: DecoderShape) -> list[Facts]:
    """Every pruned contender over the dense one of its family: FLOPs, prefill, memory and cache.

    "speed_up" is the dense prefill's time over the pruned one's, "of_flops_ratio" what that is of the ratio of
    FLOPs: 1 where all that is saved on paper is saved.
    """
    rows = []
    for pruned in measured:
        dense = _baseline(pruned, measured)
        if dense is None or not pruned.prefill or not dense.prefill:
            continue
        flops = flops_of(dense.contender, workload, shape) / flops_of(pruned.contender, workload, shape)
        speed_up = ratio(*([s["seconds"]["prefill"] for s in each.prefill] for each in (dense, pruned)))
        first = ratio(*([sum(s["seconds"].values()) for s in each.prefill] for each in (dense, pruned)))
        rows.append(
            {
                "pruned": pruned.contender.name,
                "dense": dense.contender.name,
                "flops_ratio": flops,
                "speed_up": speed_up,
                "of_flops_ratio": speed_up and speed_up["ratio"] / flops,
                "first_token_speed_up": first,
                "memory_ratio": _of_medians(_above(pruned.prefill), _above(dense.prefill)),
                "kv_ratio": pruned.prefill[0]["kv_bytes"] / dense.prefill[0]["kv_bytes"],
            }
        )
    return rows


def _baseline(pruned: Samples, measured: Sequence[Samples]) -> Samples | None:
    if not pruned.contender.prunes:
        return None
    of_family = (other for other in measured if other.contender.family == pruned.contender.family)
    return next((other for other in of_family if not other.contender.prunes), None)


def _of_medians(dividends: Sequence[int], divisors: Sequence[int]) -> float | None:
    if not any(divisors):
        return None
    found = ratio(dividends, [max(1, divisor) for divisor in divisors])
    return found["ratio"] if found else None


def curve_facts(measured: Sequence[tuple[Samples, list[Workload]]], shape: DecoderShape) -> list[Facts]:
    """A row for each contender and number of visual tokens: prefill seconds, memory, multiply-adds."""
    return [
        {
            "name": samples.contender.name,
            "prunes": samples.contender.prunes,
            "visual_tokens": workload.visual_tokens,
            "images": len(workload.images),
            "keep": workload.keep if samples.contender.prunes else workload.visual_tokens,
            "prefill_seconds": sample["seconds"]["prefill"],
            "above_weights": sample["peak_above_weights"],
            "multiply_adds": flops_of(samples.contender, workload, shape),
            "sample": sample,
        }
        for samples, workloads in measured
        for sample, workload in zip(samples.prefill, workloads, strict=True)
    ]
