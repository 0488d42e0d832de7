"""How long calls take, on a device's own clock, taking turns so that all meet the same machine."""

import statistics
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import torch

Call = Callable[[], Any]

WARM_UP = 3  # rounds that are not counted
_HEAD_START = (
    4_000_000  # cycles, about 2 ms: what is launched meanwhile is queued, and launching is not measured
)


def interleaved(
    calls: Mapping[str, Call], rounds: int, device: torch.device, queued: bool = False
) -> dict[str, list[float]]:
    """Milliseconds of each call in each round: A B C A B C ...; ``queued`` leaves the time to launch out."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    warm_up = WARM_UP if device.type == "cuda" else 1
    for number in range(warm_up + rounds):
        for name, call in calls.items():
            found = _milliseconds(call, device, queued)
            if number >= warm_up:
                seconds[name].append(found)
    return seconds


def _milliseconds(call: Call, device: torch.device, queued: bool) -> float:
    if device.type == "cpu":
        begin = perf_counter()
        call()
        return (perf_counter() - begin) * 1e3
    torch.cuda.synchronize()
    begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    if queued:
        torch.cuda._sleep(_HEAD_START)
    begin_event.record()
    result = call()
    end_event.record()
    end_event.synchronize()
    del result
    return float(begin_event.elapsed_time(end_event))


def summary(milliseconds: list[float]) -> dict[str, float]:
    """Median and spread."""
    low, _, high = statistics.quantiles(milliseconds, n=4) if len(milliseconds) > 1 else milliseconds * 3
    return {
        "median_ms": statistics.median(milliseconds),
        "quartile_1_ms": low,
        "quartile_3_ms": high,
        "min_ms": min(milliseconds),
        "max_ms": max(milliseconds),
    }


def captured(call: Call) -> Call:
    """The call as a CUDA graph: what it launches, without launching it. Raises where it looks at a value."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
