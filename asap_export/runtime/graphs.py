"""The model's three graphs as three functions; the decoder's takes and returns the cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asap_export.bundle import Manifest
from asap_export.runtime.buffers import Buffers
from asap_export.runtime.cache import (
    PLAIN_CACHES,
    Array,
    Cache,
    CacheForm,
    Integers,
    empty_cache,
    kept_tokens,
    present_name,
    trimmed,
)
from asap_export.runtime.run_memory import RunMemory
from asap_export.runtime.session import NUMPY_DTYPES, Sessions, Tensor

__all__ = ["Graphs", "StepOutput"]


@dataclass(frozen=True)
class StepOutput:
    """logits: [B, V] float32, of the last token; kept_index: [B, K] int64, places in the new tokens."""

    logits: npt.NDArray[np.float32]
    kept_index: Integers
    cache: Cache


@dataclass(frozen=True)
class Graphs:
    """``dtype`` is the graphs' own: the manifest's, unless the sessions hold graphs of another. ``memory`` is
    asked before a prompt runs, where that takes the host's."""

    manifest: Manifest
    sessions: Sessions
    dtype: str
    memory: RunMemory | None = None
    caches: CacheForm = PLAIN_CACHES

    @property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        return NUMPY_DTYPES[self.dtype]

    def empty_cache(self, batch: int) -> Cache:
        model, pruning = self.manifest.model, self.manifest.pruning
        early = pruning.prunes and not pruning.trim_early_kv
        return empty_cache(batch, model.layers, model.kv_heads, model.head_dim, self.numpy_dtype, early)

    def image_features(self, pixel_values: npt.NDArray[np.float32], gather_index: Integers) -> Tensor:
        """[tiles, 3, h, w], [N] -> [N, D] in the graphs' dtype, on the device."""
        if not len(gather_index):
            return np.zeros((0, self.manifest.model.hidden_size), self.numpy_dtype)
        pixels = pixel_values.astype(self.numpy_dtype)
        inputs = {"pixel_values": pixels, "gather_index": gather_index}
        return self.sessions.vision_encoder.run(inputs)["image_features"]

    def inputs_embeds(self, input_ids: Integers, image_features: Tensor) -> Tensor:
        """[B, T], [N, D] -> [B, T, D] on the device; features take the places of image tokens, row by row."""
        inputs = {"input_ids": input_ids, "image_features": image_features}
        return self.sessions.embed_tokens.run(inputs)["inputs_embeds"]

    def step(
        self,
        inputs_embeds: Tensor,
        new_mask: Integers,
        visual_mask: npt.NDArray[np.bool_],
        kept_length: int,
        cache: Cache,
    ) -> StepOutput:
        """Feed new tokens: a prompt, a later turn or one token.

        inputs_embeds: [B, T, D]; new_mask: [B, T], 0 for padding on the left; visual_mask: [B, T];
        kept_length: how many of the T stay.
        """
        length, (rows, new) = cache.mask.shape[1], new_mask.shape
        prunes = self.manifest.pruning.prunes
        stay = kept_length if prunes else new
        cuts = prunes and (stay < new or bool(visual_mask.any()))
        whole = self._empty(self.caches.untrimmed, rows, length + new) if cuts else {}
        buffers = self._buffers(cache, new_mask, length + stay)
        arrays = buffers.arrays if buffers is not None else {}
        grown = {name: array for name, array in arrays.items() if name not in whole}
        inputs = {"inputs_embeds": inputs_embeds, **cache.inputs(new_mask), **grown}
        if cache.buffers is not None:
            inputs |= cache.buffers.content(length, cache.buffers.arrays.keys() - grown.keys())
        into = {present_name(name): array for name, array in (grown | whole).items()}
        if prunes:
            inputs |= {"visual_mask": visual_mask, "kept_length": np.array(kept_length, np.int64)}
        on_host = ("logits", "kept_index") if prunes else ("logits",)
        outputs = self.sessions.decoder.run(inputs, on_host, into)
        kept_index = outputs["kept_index"] if prunes else np.broadcast_to(np.arange(new), new_mask.shape)
        for name, array in whole.items():
            if buffers is not None and name in arrays:  # not so where a pass of the decoder was left out
                buffers.write(name, length, kept_tokens(array, length, kept_index))
            else:
                outputs[present_name(name)] = trimmed(array, length, kept_index)
        logits = outputs["logits"][:, -1].astype(np.float32)
        return StepOutput(logits, kept_index, cache.grown(new_mask, kept_index, outputs, buffers))

    def _empty(self, names: Sequence[str], rows: int, places: int) -> dict[str, Array]:
        """Room for the caches of these names, [B, Hkv, places, d]."""
        model = self.manifest.model
        shape = rows, model.kv_heads, places, model.head_dim
        return {name: np.empty(shape, self.numpy_dtype) for name in names}

    def _buffers(self, cache: Cache, new_mask: Integers, places: int) -> Buffers | None:
        """Buffers for a step behind ``cache`` that fills ``places``; None where it cannot write in place."""
        if not self.caches.growing or not cache.plain(new_mask):
            return None
        if cache.buffers is not None:
            return cache.buffers.claimed(cache.mask.shape[1], places)
        if cache.mask.shape[1]:
            return None
        rows, model, names = len(new_mask), self.manifest.model, self.caches.growing
        buffers = Buffers.empty(names, rows, model.kv_heads, model.head_dim, self.numpy_dtype, places)
        return buffers.claimed(0, places)
