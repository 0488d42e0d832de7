"""The language model as a GPU should run it: no mask where none is needed, and hardly a wait for the device.

One prompt (or several of one length) without padding, one cut, then decode steps; batches that need padding, and
later turns, are the reference's (``reference.py``). Every length is the host's, so what a step launches, or a
prefill with a number of rounds, can be queued ahead, or captured in a CUDA graph and replayed.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from asap_export.errors import UserError
from asap_export.model.attention import ATTENTION
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.cut import take_tokens
from asap_export.pruning.device.cut import Scores, attend_and_score, drop_tokens

__all__ = ["DeviceCache", "DeviceDecoder", "Prefilled"]


class Prefilled(NamedTuple):
    """logits: [B, 1, V], of the last position; kept_index: [B, K] int64, ascending; settled: [] bool.

    ``settled`` is False only where ``rounds`` were given and too few for merging (``merging.Merged``): nothing of
    it is the method's result then, and the prefill has to be run again with more; ``kept_length`` always suffice.
    """

    logits: Tensor
    kept_index: Tensor
    settled: Tensor


class DeviceCache:
    """Keys and values in memory of a fixed size; ``update`` is what transformers' layers call.

    In a prefill the first ``trimmed`` layers hold on to what they are given until ``trim`` says what of it stays.
    ``length``: tokens in the cache; ``position``: the next token's place in the whole sequence.
    """

    def __init__(self, capacity: int, trimmed: int, layers: int) -> None:
        self.capacity, self.trimmed = capacity, trimmed
        self.length = self.position = 0
        self._whole: list[tuple[Tensor, Tensor]] = []
        self._stored: list[tuple[Tensor, Tensor]] = [()] * layers  # type: ignore[list-item]

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append the new keys and values [B, Hkv, T, d] of a layer; returns all of them."""
        if self.length == 0:
            if layer < self.trimmed:
                self._whole.append((key, value))
            else:
                self._store(layer, key, value)
            return key, value
        end = self.length + key.shape[2]
        for stored, new in zip(self._stored[layer], (key, value), strict=True):
            stored[:, :, self.length : end] = new
        stored_key, stored_value = self._stored[layer]
        return stored_key[:, :, :end], stored_value[:, :, :end]

    def trim(self, kept_index: Tensor) -> None:
        """Store what survived the cut, [B, K] int64, of the layers before it."""
        for layer, pair in enumerate(self._whole):
            key, value = (take_tokens(part.transpose(1, 2), kept_index).transpose(1, 2) for part in pair)
            self._store(layer, key, value)
        self._whole.clear()

    def _store(self, layer: int, *pair: Tensor) -> None:
        batch, heads, tokens, width = pair[0].shape
        if not self._stored[layer]:
            empty = (pair[0].new_empty(batch, heads, self.capacity, width) for _ in pair)
            self._stored[layer] = next(empty), next(empty)
        for stored, new in zip(self._stored[layer], pair, strict=True):
            stored[:, :, :tokens] = new


class DeviceDecoder:
    """A LLaVA model's language model with the cut inside, on transformers' own layers.

    ``fused``: the scoring layer's attention by Triton kernels instead of PyTorch's with a mask. Raises UserError
    for what only the reference does: the method random, and early layers' caches that are not trimmed.
    """

    def __init__(self, llava: Any, pruning: PruningConfig, fused: bool = False) -> None:
        if pruning.method == "random" or not pruning.trim_early_kv:
            raise UserError(
                "expected the method asap, fastv or none with trimmed caches on a device, found another; "
                "use the reference"
            )
        llava.config.text_config._attn_implementation = ATTENTION
        self.language_model: Any = llava.model.language_model
        self.lm_head: Any = llava.lm_head
        self.pruning, self.fused = pruning, fused

    def cache(self, kept_length: int, new_tokens: int) -> DeviceCache:
        """Room for what a prefill keeps and for the tokens decoded after it."""
        trimmed = self.pruning.prune_after if self.pruning.prunes else 0
        return DeviceCache(kept_length + new_tokens, trimmed, len(self.language_model.layers))

    @torch.no_grad()
    def prefill(
        self,
        embeds: Tensor,
        visual_mask: Tensor,
        kept_length: int,
        cache: DeviceCache,
        rounds: int | None = None,
    ) -> Prefilled:
        """Run prompts without padding through all layers.

        Looks at whether merging has settled, again and again until it has; with ``rounds`` that is the caller's.

        embeds: [B, T, D]; visual_mask: [B, T] bool; kept_length: tokens that survive the cut, text included;
        where that is all of them, nothing is scored, and the prefill is the dense one.
        """
        batch, tokens = visual_mask.shape
        cut_after = self.pruning.prune_after if self.pruning.prunes and kept_length < tokens else None
        cache.length = 0
        position = torch.arange(tokens, device=embeds.device).expand(batch, -1)
        hidden, kept_index = embeds, position
        settled = torch.ones((), dtype=torch.bool, device=embeds.device)
        rotary = self.language_model.rotary_emb(hidden, position_ids=position)
        for number, layer in enumerate(self.language_model.layers, 1):
            if number != cut_after:
                hidden = self._run(layer, hidden, cache, rotary, _causal)
                continue
            scoring = _Scoring(self.pruning, visual_mask, self.fused)
            hidden = self._run(layer, hidden, cache, rotary, scoring)
            hidden, kept_index, settled = drop_tokens(
                self.pruning, scoring.seen, hidden, visual_mask, kept_length, rounds=rounds
            )
            rotary = self.language_model.rotary_emb(hidden, position_ids=kept_index)
        cache.trim(kept_index)
        cache.length, cache.position = hidden.shape[1], tokens
        return Prefilled(self._logits(hidden), kept_index, settled)

    @torch.no_grad()
    def step(self, embeds: Tensor, cache: DeviceCache) -> Tensor:
        """Decode one token per sequence. embeds: [B, 1, D]. Returns logits [B, 1, V]."""
        position = torch.full((embeds.shape[0], 1), cache.position, device=embeds.device)
        rotary = self.language_model.rotary_emb(embeds, position_ids=position)
        hidden = embeds
        for layer in self.language_model.layers:
            hidden = self._run(layer, hidden, cache, rotary, _to_all)
        cache.length, cache.position = cache.length + 1, cache.position + 1
        return self._logits(hidden)

    def _run(self, layer: Any, hidden: Tensor, cache: DeviceCache, rotary: Any, instead: Any) -> Tensor:
        output: Tensor = layer(
            hidden,
            past_key_values=cache,
            position_embeddings=rotary,
            attention_mask=None,
            instead=instead,
        )
        return output

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.lm_head(self.language_model.norm(hidden[:, -1:]))
        return logits


class _Scoring:
    """The scoring layer's attention, which remembers what it saw."""

    seen: Scores

    def __init__(self, pruning: PruningConfig, visual_mask: Tensor, fused: bool) -> None:
        self.pruning, self.visual_mask, self.fused = pruning, visual_mask, fused

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        output, self.seen = attend_and_score(
            self.pruning, query, key, value, self.visual_mask, scale, fused=self.fused
        )
        return output


def _causal(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    return _attention(query, key, value, scale, is_causal=True)


def _to_all(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """A single new token sees everything that is valid, and everything is."""
    return _attention(query, key, value, scale, is_causal=False)


def _attention(query: Tensor, key: Tensor, value: Tensor, scale: float, is_causal: bool) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
