"""How much memory building an engine takes, told from its weights before anything is done."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from asap_export.engine.parts import DecoderPart, decoder_parts
from asap_export.errors import UserError
from asap_export.memory import gigabytes

__all__ = ["WeightSizes", "check_memory", "engine_weights", "peak_memory"]

# A line above what builds with TensorRT-RTX 1.7 allocated; docs/architecture.md says which.
_BASE = 500_000_000  # bytes
_PER_BYTE = 1.75  # of weights
_PER_QUANTIZED_BYTE, _PER_BYTE_HELD_TWICE = 2.25, 3.0  # the latter where a step may take several rows

_LAYER = re.compile(r"^model\.language_model\.layers\.(\d+)\.")


@dataclass(frozen=True)
class WeightSizes:
    """What a bundle's weights are, as far as memory goes.

    sizes: bytes of every parameter in the bundle's form, by its name in transformers' model class; layers: of the
    decoder, whose weights may be ``quantized``; cut: layers that see every token, None where none is pruned;
    max_batch: prompts at once.
    """

    sizes: Mapping[str, int]
    layers: int
    cut: int | None = None
    quantized: bool = False
    max_batch: int = 1


def engine_weights(model: WeightSizes, parts: Sequence[DecoderPart]) -> dict[str, int]:
    """Bytes of weights in every engine, by its title."""
    totals: dict[str, int] = {}
    for name, size in model.sizes.items():
        layer = _LAYER.match(name)
        if name.startswith("model.language_model.embed_tokens."):
            engine = "embed_tokens"
        elif name.startswith(("model.language_model.", "lm_head.")):
            number = int(layer[1]) if layer else model.layers - 1  # the norm and the head come last
            engine = next(part.title for part in parts if number <= part.last)
        else:
            engine = "vision_encoder"
        totals[engine] = totals.get(engine, 0) + size
    return totals


def peak_memory(model: WeightSizes, parts: Sequence[DecoderPart]) -> dict[str, int]:
    """Bytes that building every engine allocates at its peak.

    Weights read from files are not among them: the system takes those pages back when it must.
    """
    quantized = _PER_QUANTIZED_BYTE if model.max_batch == 1 else _PER_BYTE_HELD_TWICE
    return {
        engine: int(
            _BASE + weights * (quantized if model.quantized and engine.startswith("decoder") else _PER_BYTE)
        )
        for engine, weights in engine_weights(model, parts).items()
    }


def check_memory(model: WeightSizes, parts: Sequence[DecoderPart], available: int) -> None:
    """Raise UserError where an engine needs more memory than the ``available`` bytes, with what would help."""
    peaks = peak_memory(model, parts)
    engine = max(peaks, key=lambda name: peaks[name])
    if peaks[engine] <= available:
        return
    ways = [] if model.quantized or not engine.startswith("decoder") else ["--quantize int4"]
    longest = max(part.last - part.first + 1 for part in parts)
    if fitting := _most_layers(model, available, below=longest):
        ways.append(f"--layers-per-engine {fitting}")
    raise UserError(
        f"expected about {gigabytes(peaks[engine])} of memory to build the engine of {engine}, found "
        f"{gigabytes(available)} available; use {', '.join([*ways, 'a machine with more'])} or --engine ort "
        "(--no-check-memory tries all the same)"
    )


def _most_layers(model: WeightSizes, available: int, below: int) -> int | None:
    """The largest number of layers per engine that fits."""
    numbers = range(below - 1, 0, -1)
    return next((each for each in numbers if max(_peaks_with(model, each)) <= available), None)


def _peaks_with(model: WeightSizes, layers_per_engine: int) -> Iterable[int]:
    return peak_memory(model, decoder_parts(model.layers, model.cut, layers_per_engine)).values()
