"""What is measured, in plain values: these records cross the border to worker processes as JSON."""

from dataclasses import dataclass
from typing import Literal

from asap_export.pruning.config import Method

__all__ = ["ON_HOST", "PARTS", "SCHEMA", "SHOWN", "BenchProvider", "Contender", "Workload"]

SCHEMA = 1  # of a measurement's JSON
# Its parts that tables and plots show.
SHOWN = (
    "date", "model", "workload", "settings", "note", "contenders", "skipped", "comparisons", "profiles", "curve",
)  # fmt: skip
PARTS = ("preprocess", "vision", "embed", "prefill")  # of the time to first token, in order

BenchProvider = Literal["cpu", "openvino", "cuda", "tensorrt"]
ON_HOST: tuple[BenchProvider, ...] = ("cpu", "openvino")


@dataclass(frozen=True)
class Contender:
    """One thing that answers prompts.

    ``source`` is a bundle (run as it is or under the profiler) or a checkpoint's folder. Contenders of one
    ``family`` differ in what they prune only, so the dense one among them is the others' baseline. ``pruning``
    holds the fields of a ``PruningConfig``. ``provider`` runs a bundle; transformers computes on its device."""

    name: str
    kind: Literal["bundle", "profiled", "transformers"]
    source: str
    family: str
    dtype: str
    method: Method
    pruning: dict[str, str | int | float | bool]
    provider: BenchProvider = "cpu"

    @property
    def prunes(self) -> bool:
        return self.method != "none"


@dataclass(frozen=True)
class Workload:
    """One prompt, the same for all: image files, of whose visual tokens the first ``visual_tokens`` are used,
    and a text of ``text_tokens``. ``keep`` visual tokens survive a cut."""

    images: tuple[str, ...]
    prompt: str
    visual_tokens: int
    text_tokens: int
    keep: int
