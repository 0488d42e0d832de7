"""What Prometheus reads at ``/metrics``."""

from collections.abc import Callable
from pathlib import Path
from resource import getpagesize

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from asap_export.runtime.request import Answer
from asap_export.serving.batcher import Batcher

__all__ = ["Metrics"]

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """Of one server; ``registry`` is its own, so that several may stand in one process."""

    def __init__(self, batcher: Batcher) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests by HTTP status", ["status"])
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "From the request to its first token"
        )
        self._per_token = self._histogram("time_per_output_token_seconds", "Of each token after the first")
        self._waited = self._histogram("queue_seconds", "Before a prompt is fed")
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts, visual ones included")
        self._written = self._counter("generation_tokens", "Tokens of answers")
        self._visual = self._counter("visual_tokens", "Visual tokens of prompts")
        self._kept = self._counter("kept_visual_tokens", "Visual tokens that pruning left")
        self._gauge("requests_waiting", "Requests that no row is free for", lambda: batcher.waiting)
        self._gauge("requests_running", "Rows that write an answer: the batch", lambda: batcher.running)
        self._gauge("rows", "Rows that there are", lambda: batcher.rows.most)
        self._gauge("rows_at_once", "1 where a step feeds all rows in one run, 0 where one after the other",
                    lambda: batcher.rows.memory > 0)  # fmt: skip
        self._gauge("cache_places", "Places of all rows' caches; 0 where they have no limit",
                    lambda: (batcher.rows.places or 0) * batcher.rows.most)  # fmt: skip
        self._gauge("cache_places_filled", "Places that rows have filled", lambda: batcher.places_filled)
        self._gauge("cache_bytes", "Memory of all rows' caches", lambda: batcher.rows.memory)
        self._gauge("resident_bytes", "Resident memory of this process", _resident)

    def text(self) -> bytes:
        """In Prometheus' exposition format."""
        return generate_latest(self.registry)

    def answered(self, answer: Answer, prompt_tokens: int, waited: float) -> None:
        """Note an answer that is complete."""
        timings = answer.timings
        self._first_token.observe(waited + timings.first_token)
        self._waited.observe(waited)
        for seconds in timings.decode:
            self._per_token.observe(seconds)
        self._prompt.inc(prompt_tokens)
        self._written.inc(len(answer.token_ids))
        self._visual.inc(answer.visual_tokens)
        self._kept.inc(answer.kept_visual_tokens)

    def _counter(self, name: str, what: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"asap_{name}", what, labels or [], registry=self.registry)

    def _histogram(self, name: str, what: str) -> Histogram:
        return Histogram(f"asap_{name}", what, buckets=_SECONDS, registry=self.registry)

    def _gauge(self, name: str, what: str, read: Callable[[], float]) -> None:
        Gauge(f"asap_{name}", what, registry=self.registry).set_function(read)


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()
