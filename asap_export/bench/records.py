"""What is measured, in plain values: these records cross the border to worker processes as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # a worker reads this file under interpreters that have none of this package's dependencies
    from asap_export.pruning.config import Method

__all__ = [
    "ON_HOST",
    "OWN_PROMPT",
    "PARTS",
    "PEERS",
    "REFERENCE",
    "SCHEMA",
    "SHOWN",
    "BenchProvider",
    "Contender",
    "Kind",
    "Precision",
    "Workload",
]

SCHEMA = 1  # of a measurement's JSON
# Its parts that tables and plots show.
SHOWN = (
    "date", "model", "workload", "settings", "note", "contenders", "skipped", "comparisons", "profiles", "curve",
)  # fmt: skip
PARTS = ("preprocess", "vision", "embed", "prefill")  # of the time to first token, in order

BenchProvider = Literal["cpu", "openvino", "cuda", "tensorrt"]
PEERS = ("transformers", "openvino-genai", "llama.cpp")
OWN_PROMPT = PEERS[1:]  # take text and images, and decide themselves how many tokens these are
ON_HOST: tuple[BenchProvider, ...] = ("cpu", "openvino")

Kind = Literal["bundle", "profiled", "transformers", "openvino-genai", "llama.cpp", "reference"]
Precision = Literal["auto", "f32", "bf16"]  # what OpenVINO computes products in


@dataclass(frozen=True)
class Contender:
    """One thing that answers prompts.

    ``source`` is a bundle (run as it is or under the profiler), a checkpoint's folder or what was converted of it.
    Contenders of one ``family`` differ in what they prune only, so the dense one among them is the others'
    baseline. ``dtype`` is shown; ``computes`` is what most products are computed in, and names the machine's rate
    that they are held against: "f32", "bf16", "fp16" or "int8". ``pruning`` holds the fields of a
    ``PruningConfig``. ``provider`` runs a bundle; transformers computes on its device. ``precision`` is
    OpenVINO's, and ``program`` runs a contender that is not run by this interpreter: another one, or llama.cpp's
    server."""

    name: str
    kind: Kind
    source: str
    family: str
    dtype: str
    method: Method
    pruning: dict[str, str | int | float | bool]
    provider: BenchProvider = "cpu"
    computes: str = "f32"
    precision: Precision = "auto"
    program: str | None = None

    @property
    def prunes(self) -> bool:
        return self.method != "none"


# No contender: what the others' rates are held against.
REFERENCE = Contender("the machine's rates", "reference", "", "reference", "", "none", {})


@dataclass(frozen=True)
class Workload:
    """One prompt, the same for all: image files, of whose visual tokens the first ``visual_tokens`` are used,
    and a text of ``text_tokens``. ``keep`` visual tokens survive a cut."""

    images: tuple[str, ...]
    prompt: str
    visual_tokens: int
    text_tokens: int
    keep: int
