"""Prefills of many prompts that begin alike, under many configurations: what they share is computed once.

The prompts are questions about one picture: a *head* that ends with the last visual token, and *tails* of text.
Tokens never see later ones, but for visual tokens in the scoring layer, which see one another. So up to that
layer's output everything is the same for all configurations, and the head also for all tails; behind it, what is
kept of the head may depend on a tail, by the scores that text rows give. The result is what ``Reference.prefill``
computes for each prompt alone, up to the order of additions.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asap_export.model.attention import KeyValueCache
from asap_export.model.decoder import Decoder
from asap_export.model.reference import Context
from asap_export.pruning import operators
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.cut import (
    Observation,
    Survivors,
    criterion,
    drop_tokens,
    observe_attention,
    take_tokens,
)
from asap_export.pruning.scores import row_weight

__all__ = ["SharedHead", "SharedTails", "asks_the_text"]

_DEFAULTS = PruningConfig()


def asks_the_text(pruning: PruningConfig) -> bool:
    """Whether what is kept depends on the text behind the picture."""
    return pruning.prunes and pruning.method != "random" and criterion(pruning) in ("text", "last")


class _Run:
    """New tokens [B, T, D] on their way through the layers without any cut, as far as they have been asked for.

    ``hidden`` are the states before each layer, and behind the last that was run; ``queries`` those of each layer,
    [B, H, T, d]; ``bias`` [B, 1, T, P+T] is the causal mask. valid: [B, P+T] bool; positions: [B, T] int64.
    """

    def __init__(self, decoder: Decoder, embeds: Tensor, valid: Tensor, positions: Tensor) -> None:
        self._layers = decoder.language_model.layers
        self.hidden, self.valid = [embeds], valid
        self.queries: list[Tensor] = []
        self.scale = 1.0
        self.cache = _no_caches(decoder)
        self.inputs = decoder.layer_inputs(embeds, positions, valid)
        mask = self.inputs["attention_mask"]
        self.bias = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)

    def advance(self, past: tuple[Tensor, Tensor]) -> None:
        """Run the next layer behind ``past``, [B, Hkv, P, d] keys and values."""
        number = len(self.hidden) - 1
        self.cache.past[number] = past

        def observe(query: Tensor, key: Tensor, scale: float) -> Tensor:
            self.queries.append(query)
            self.scale = scale
            return self.bias

        layer = self._layers[number]
        self.hidden.append(layer(self.hidden[-1], past_key_values=self.cache, observe=observe, **self.inputs))


class _Scored(NamedTuple):
    """The scoring layer's output for the head, [1, T, D], and what its attention showed."""

    hidden: Tensor
    seen: Observation


class SharedHead:
    """The beginning of all prompts: embeds [1, T, D]; visual [1, T] bool, True in the last place."""

    def __init__(self, llava: Any, embeds: Tensor, visual: Tensor) -> None:
        self.decoder = Decoder(llava, PruningConfig(method="none"))
        self.visual = visual
        self.length = embeds.shape[1]
        positions = torch.arange(self.length, device=embeds.device)[None]
        self._run = _Run(self.decoder, embeds, torch.ones_like(visual), positions)
        self._scored: dict[PruningConfig, _Scored] = {}

    @property
    def layers(self) -> int:
        return len(self.decoder.language_model.layers)

    def keys_and_values(self, layer: int) -> tuple[Tensor, Tensor]:
        """Of a layer that nothing was cut before, [1, Hkv, T, d] each."""
        while len(self._run.hidden) <= layer + 1:
            self._run.advance(self.nothing(1))
        return self._run.cache.present[layer]

    def scored(self, pruning: PruningConfig) -> _Scored:
        """The scoring layer under a configuration. Where the text decides, the score in it means nothing."""
        scoring = _scoring(pruning)
        if scoring not in self._scored:
            number, run = pruning.prune_after - 1, self._run
            key, _ = self.keys_and_values(number)
            seen = observe_attention(scoring, run.queries[number], key, self.visual, run.valid, run.scale)
            cache = _no_caches(self.decoder)
            cache.past[number] = self.nothing(1)
            layer = self.decoder.language_model.layers[number]
            hidden = layer(
                run.hidden[number], past_key_values=cache, observe=lambda *_: seen.bias, **run.inputs
            )
            self._scored[scoring] = _Scored(hidden, seen)
        return self._scored[scoring]

    def nothing(self, rows: int) -> tuple[Tensor, Tensor]:
        """Keys and values of no tokens, [rows, Hkv, 0, d] each."""
        text, hidden = self.decoder.language_model.config, self._run.hidden[0]
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        empty = hidden.new_zeros(rows, text.num_key_value_heads, 0, head_dim)
        return empty, empty


class SharedTails:
    """Ends of prompts behind one head: embeds [B, t, D], padded on the left; valid [B, t] int64."""

    def __init__(self, head: SharedHead, embeds: Tensor, valid: Tensor) -> None:
        self._head, self._valid = head, valid
        self._rows = embeds.shape[0]
        self._positions = (head.length + valid.cumsum(dim=1) - 1).clamp_min(0)
        self._embeds = embeds
        self._run = self._begun()

    def prefill(self, pruning: PruningConfig, keep: int) -> tuple[Tensor, Context]:
        """Logits [B, 1, V] of the prompts' last tokens, and what later tokens need to know of them.

        ``keep`` visual tokens of each prompt survive.
        """
        head, model = self._head, self._head.decoder.language_model
        cuts = pruning.prunes and keep < int(head.visual.sum())  # what loses nothing runs dense
        cut = pruning.prune_after if cuts else head.layers
        for layer in range(len(self._run.hidden) - 1, cut):
            self._run.advance(_expanded(head.keys_and_values(layer), self._rows))
        kept_index = torch.arange(head.length, device=self._valid.device)[None]
        hidden, late = self._run.hidden[cut], self._run.cache
        if cuts:
            survivors = self._cut(pruning, keep)
            kept_index = survivors.kept_index
            hidden, late = self._behind_the_cut(survivors, hidden, cut)
        logits: Tensor = head.decoder.lm_head(model.norm(hidden[:, -1:]))
        early = kept_index if cuts and pruning.trim_early_kv else None
        past = [*(self._early(layer, early) for layer in range(cut)), *late.present[cut:]]
        valid = self._behind(kept_index.shape[1]).long()
        early_valid = valid if pruning.trim_early_kv else self._behind(head.length).long()
        position = head.length + self._valid.sum(dim=1, keepdim=True)
        if not cuts:  # caches of all layers are most of the memory, and what a cut needs is soon run again
            self._run = self._begun()
        return logits, Context(past, valid, early_valid, position)

    def _begun(self) -> _Run:
        return _Run(self._head.decoder, self._embeds, self._behind(self._head.length), self._positions)

    def _cut(self, pruning: PruningConfig, keep: int) -> Survivors:
        """What is left of the head: one row for all tails, or one for each where the text decides."""
        head = self._head
        scored = head.scored(pruning)
        seen, hidden, visual = scored.seen, scored.hidden, head.visual
        if asks_the_text(pruning):
            score = self._asked(pruning)
            rows = (self._rows, -1)
            seen = Observation(seen.bias, score, seen.mass.expand(rows), seen.salience.expand(rows))
            hidden, visual = hidden.expand(*rows, -1), visual.expand(rows)
        length = torch.tensor(keep + int((~head.visual).sum()))
        return drop_tokens(pruning, seen, hidden, visual, torch.ones_like(visual), length)

    def _asked(self, pruning: PruningConfig) -> Tensor:
        """The attention that the head's tokens receive from the tails, [B, T] float32."""
        run, number = self._run, pruning.prune_after - 1
        valid = self._valid.bool()
        weight = row_weight(criterion(pruning), torch.zeros_like(valid), valid)
        key, _ = run.cache.present[number]
        received = operators.score(run.queries[number], key, run.bias, weight, run.scale)
        of_head: Tensor = received[:, : self._head.length]
        return of_head

    def _behind_the_cut(self, survivors: Survivors, tails: Tensor, cut: int) -> tuple[Tensor, KeyValueCache]:
        """The tails [B, t, D] behind all layers, and the caches of those behind the cut."""
        decoder, (head, kept) = self._head.decoder, survivors
        everyone = torch.ones(kept.shape, dtype=torch.bool, device=kept.device)
        head_inputs = decoder.layer_inputs(head, kept, everyone)
        tail_inputs = decoder.layer_inputs(tails, self._positions, self._behind(kept.shape[1]))
        before, late = _no_caches(decoder), _no_caches(decoder)
        for number in range(cut, self._head.layers):
            layer = decoder.language_model.layers[number]
            before.past[number] = self._head.nothing(len(head))
            head = layer(head, past_key_values=before, **head_inputs)
            late.past[number] = _expanded(before.present[number], self._rows)
            tails = layer(tails, past_key_values=late, **tail_inputs)
        return tails, late

    def _early(self, layer: int, kept_index: Tensor | None) -> tuple[Tensor, Tensor]:
        """The cache of a layer before the cut: of the head what is kept, or all of it; of the tails all."""
        whole = self._run.cache.present[layer]
        if kept_index is None:
            return whole
        kept = kept_index.expand(self._rows, -1)
        tails = torch.arange(self._head.length, whole[0].shape[2], device=kept.device).expand(self._rows, -1)
        index = torch.cat([kept, tails], dim=1)
        key, value = (take_tokens(part.transpose(1, 2), index).transpose(1, 2) for part in whole)
        return key, value

    def _behind(self, tokens: int) -> Tensor:
        """The mask [B, tokens+t] bool of the tails behind so many tokens of the head."""
        before = self._valid.new_ones(self._rows, tokens)
        return torch.cat([before, self._valid], dim=1).bool()


def _scoring(pruning: PruningConfig) -> PruningConfig:
    """The configuration that makes the same bias, mass and salience, and the score unless the text makes it."""
    if pruning.method == "random":
        return pruning
    scoring = replace(
        pruning, threshold=_DEFAULTS.threshold, merge=True, trim_early_kv=_DEFAULTS.trim_early_kv
    )
    if pruning.method == "fastv":
        scoring = replace(scoring, method="asap", bidirectional=False)
    if asks_the_text(pruning):
        scoring = replace(scoring, score="salience")  # which costs nothing beside the mass
    return scoring


def _no_caches(decoder: Decoder) -> KeyValueCache:
    """Caches whose past is still to be said, layer by layer."""
    unsaid: Any = None
    return KeyValueCache([unsaid] * len(decoder.language_model.layers))


def _expanded(caches: tuple[Tensor, Tensor], rows: int) -> tuple[Tensor, Tensor]:
    key, value = (part.expand(rows, -1, -1, -1) for part in caches)
    return key, value
