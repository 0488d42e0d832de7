"""How a model that runs stage by stage is measured: the same sequence for every library."""

from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from asap_export.bench.records import PARTS, Workload
from asap_export.bench.workload import fitted
from asap_export.model.anyres import TileGeometry, packing, tile_count
from asap_export.runtime.images import read_image
from asap_export.runtime.prompt import PromptReader
from asap_export.spec import ModelSpec

__all__ = ["Inputs", "Memory", "StagedModel", "StagedRunner", "some_token"]

Integers = npt.NDArray[np.int64]
State = Any  # what a model remembers of a prompt, and what it was asked to keep of it

_TINY_TEXT = 4  # tokens of the run that touches every weight


@dataclass(frozen=True)
class Inputs:
    """input_ids: [1, T]; pixel_values: [tiles, 3, h, w] float32; gather_index: [N] rows of all tiles' features,
    N ≤ visual tokens of the images; image_sizes: (height, width) of each."""

    input_ids: Integers
    pixel_values: npt.NDArray[np.float32]
    gather_index: Integers
    image_sizes: tuple[tuple[int, int], ...]


def some_token(spec: ModelSpec) -> int:
    """What decode steps are fed: which text token does not matter."""
    middle = spec.vocab_size // 2
    return middle if middle != spec.image_token_id else middle + 1


class StagedModel(Protocol):
    """A loaded model, one row at a time. Features, embeddings and states are the library's own."""

    spec: ModelSpec
    reader: PromptReader

    def vision(self, inputs: Inputs) -> Any:
        """Image features [N, D]."""

    def embed(self, input_ids: Integers, features: Any) -> Any:
        """[1, T], [N, D] -> [1, T, D]."""

    def prefill(self, embeds: Any, visual_mask: npt.NDArray[np.bool_], keep: int, room: int) -> State:
        """The state after a prompt, and after its logits. visual_mask: [1, T]; ``room``: tokens to come."""

    def decode(self, state: State, steps: int) -> list[float]:
        """Seconds of each of ``steps`` tokens behind ``state``, which stays as it was."""

    def kv_bytes(self, state: State) -> tuple[int, int]:
        """Bytes of the valid entries of a state's cache, and of the arrays that hold it."""

    def cache_length(self, state: State) -> int:
        """Tokens in the longest layer's cache."""


class Memory(Protocol):
    """Bytes that this process holds, in the memory where its contender computes."""

    def give_back(self) -> None:
        """Return to the system what nobody uses any more."""

    def in_use(self) -> int:
        """Bytes now."""

    def reset_peak(self) -> bool:
        """Begin anew; False where peaks cannot be told."""

    def peak(self) -> int:
        """The most bytes since the last ``reset_peak``."""


class StagedRunner:
    """Runs jobs on one model. ``weights`` are bytes in use after a tiny run that touched every weight; None, as
    every sample's memory is, without a ``memory`` to ask, and then the samples' "note" is ``note``."""

    def __init__(self, model: StagedModel, memory: Memory | None, note: str | None = None) -> None:
        self.model = model
        self._memory, self._note = memory, note
        self._caches: dict[int, State] = {}
        self._tiny()
        self.weights = self._in_use()
        self._left_behind = 0  # what the decoder's runs have taken from the system and not given back

    def prefill(self, workload: Workload, decode_steps: int) -> dict[str, Any]:
        """One prompt from image files to logits, then ``decode_steps`` tokens of which the first is not
        counted."""
        model = self.model
        pictures = [read_image(file) for file in workload.images]
        moments = [perf_counter()]
        prompt = model.reader.read(workload.prompt, pictures)
        ids = fitted(
            prompt.input_ids.tolist(), model.spec.image_token_id, workload.visual_tokens, workload.text_tokens
        )[None]
        gather = packing(prompt.image_sizes, TileGeometry.of(model.spec)).gather_index
        inputs = Inputs(ids, prompt.pixel_values, gather[: workload.visual_tokens], prompt.image_sizes)
        visual_mask = ids == model.spec.image_token_id
        moments.append(perf_counter())
        features = model.vision(inputs)
        moments.append(perf_counter())
        embeds = model.embed(ids, features)
        moments.append(perf_counter())
        before = self._in_use()
        measurable = self._memory is not None and self._memory.reset_peak()
        decoding = perf_counter()
        state = model.prefill(embeds, visual_mask, workload.keep, decode_steps)
        prefilled = perf_counter() - decoding
        highest = self._memory.peak() if self._memory is not None and measurable else None
        seconds = [after - earlier for earlier, after in pairwise(moments)] + [prefilled]
        steps = model.decode(state, decode_steps) if decode_steps else []
        valid, held = model.kv_bytes(state)
        sample = {
            "seconds": dict(zip(PARTS, seconds, strict=True)),
            "decode": steps[1:],
            "cache_length": model.cache_length(state),
            "kv_bytes": valid,
            "kv_held_bytes": held,
            "peak_above_weights": self._above(before, highest),
            "peak": highest,
            "note": self._note,
        }
        del state, embeds, features, inputs, prompt
        after = self._in_use()
        if before is not None and after is not None:
            self._left_behind = max(0, self._left_behind + after - before)
        return sample

    def _in_use(self) -> int | None:
        """Bytes that somebody still uses."""
        if self._memory is None:
            return None
        self._memory.give_back()
        return self._memory.in_use()

    def _above(self, before: int | None, highest: int | None) -> int | None:
        return None if before is None or highest is None else max(0, highest - before + self._left_behind)

    def cache(self, length: int) -> None:
        """Make the cache that ``decode`` of this length goes on from: a prompt of text alone."""
        ids = self._text(length)
        embeds = self.model.embed(ids, self._no_features())
        self._caches[length] = self.model.prefill(embeds, np.zeros(ids.shape, bool), 0, 64)

    def decode(self, length: int, steps: int) -> list[float]:
        """Seconds of ``steps`` tokens behind ``length`` others, the first one not counted."""
        if length not in self._caches:
            self.cache(length)
        return self.model.decode(self._caches[length], steps + 1)[1:]

    def drop(self) -> None:
        """Forget all caches."""
        self._caches.clear()
        if self._memory is not None:
            self._memory.give_back()

    def _tiny(self) -> None:
        """The smallest image, one visual token of it, a few text tokens, one step."""
        spec = self.model.spec
        side = spec.tile_size
        pixels = np.zeros((tile_count((side, side), TileGeometry.of(spec)), 3, side, side), np.float32)
        inputs = Inputs(np.empty((1, 0), np.int64), pixels, np.arange(1), ((side, side),))
        ids = np.concatenate([[[spec.image_token_id]], self._text(_TINY_TEXT)], axis=1)
        embeds = self.model.embed(ids, self.model.vision(inputs))
        state = self.model.prefill(embeds, ids == spec.image_token_id, 1, 2)
        self.model.decode(state, 1)

    def _no_features(self) -> Any:
        nothing = Inputs(np.empty((1, 0), np.int64), np.empty(0, np.float32), np.empty(0, np.int64), ())
        return self.model.vision(nothing)

    def _text(self, length: int) -> Integers:
        """Seeded token ids [1, length] without an image token or one of the first, special ones."""
        spec = self.model.spec
        ids = np.random.default_rng(length).integers(spec.vocab_size // 4, spec.vocab_size // 2, length)
        return np.where(ids == spec.image_token_id, ids + 1, ids)[None].astype(np.int64)
