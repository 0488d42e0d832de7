"""The language model with the cut inside: transformers' own layers, our loop over them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asap_export.errors import UserError
from asap_export.model.attention import ATTENTION, KeyValueCache
from asap_export.model.shortened import with_first_layers
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.cut import (
    Observation,
    Survivors,
    drop_tokens,
    observe_attention,
    prunable,
    take_tokens,
)
from asap_export.pruning.mask import causal_mask

__all__ = ["Cut", "Decoder", "DecoderOutput", "KeyValues"]

KeyValues = list[tuple[Tensor, Tensor]]


class DecoderOutput(NamedTuple):
    """logits: [B, 1, V], of the last position; kept_index: [B, K] int64, ascending positions in the new tokens;
    present: keys and values per layer, [B, Hkv, P+K, d]."""

    logits: Tensor
    kept_index: Tensor
    present: KeyValues


class Cut(NamedTuple):
    """All that goes into one cut and comes out of it, for those who compare and explain.

    query: [B, H, T, d]; key: [B, Hkv, P+T, d]; scale of the logits; visual: [B, T] bool, all visual tokens;
    visual_mask: [B, T] bool, those of the rows that lose any (``prunable``), of which alone the cut knows;
    attention_mask: [B, P+T] bool, of the scoring layer; new_mask: [B, T] bool, of the new tokens; hidden:
    [B, T, D], before; kept_length: [] int64.
    """

    query: Tensor
    key: Tensor
    scale: float
    visual: Tensor
    visual_mask: Tensor
    attention_mask: Tensor
    new_mask: Tensor
    hidden: Tensor
    kept_length: Tensor
    seen: Observation
    survivors: Survivors


class Decoder(nn.Module):
    """Prefill, later turns and decode steps of a LLaVA language model, in one module.

    ``prune_after`` layers see every new token; then the visual tokens are cut down and the other layers see
    ``kept_length`` new tokens. A row whose valid new tokens are no more than that runs as in the dense model.
    Batches are padded on the left, because the logits are those of the last position.
    """

    def __init__(self, llava: Any, pruning: PruningConfig) -> None:
        super().__init__()
        layers = llava.config.text_config.num_hidden_layers
        if pruning.prunes and pruning.prune_after >= layers:
            raise UserError(
                f"expected --prune-after below the model's {layers} layers, found {pruning.prune_after}"
            )
        llava.config.text_config._attn_implementation = ATTENTION
        self.language_model: Any = llava.model.language_model
        self.lm_head: nn.Module = llava.lm_head
        self.pruning = pruning
        self.on_cut: Callable[[Cut], Survivors | None] | None = None  # may choose other survivors

    def keep_first_layers(self, layers: int) -> None:
        """Be the decoder of the model's first layers."""
        self.language_model = with_first_layers(self.language_model, layers)

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past_key_values: KeyValues,
        visual_mask: Tensor | None = None,
        kept_length: Tensor | None = None,
        early_attention_mask: Tensor | None = None,
    ) -> DecoderOutput:
        """Run the new tokens through all layers.

        inputs_embeds: [B, T, D]; attention_mask: [B, P+T] int64, 1 for valid tokens; position_ids: [B, T] int64;
        past_key_values: per layer [B, Hkv, P, d]; visual_mask: [B, T] bool; kept_length: [] int64, new tokens
        that survive, text included; early_attention_mask: [B, P'+T] int64, the mask of the layers before the
        cut where their caches are not trimmed (``trim_early_kv`` off).
        """
        cache = KeyValueCache(past_key_values)
        late_valid = attention_mask.bool()
        valid = late_valid if early_attention_mask is None else early_attention_mask.bool()
        hidden, tokens = inputs_embeds, inputs_embeds.shape[1]
        kept_index = torch.arange(tokens, device=hidden.device).expand(hidden.shape[0], -1)
        layer_inputs = self.layer_inputs(hidden, position_ids, valid)
        for number, layer in enumerate(self.language_model.layers):
            if not self.pruning.prunes or number != self.pruning.prune_after - 1:
                hidden = layer(hidden, past_key_values=cache, **layer_inputs)
                continue
            assert visual_mask is not None and kept_length is not None
            new_valid = late_valid[:, late_valid.shape[1] - tokens :]
            observer = _Observer(self.pruning, prunable(visual_mask, new_valid, kept_length), valid)
            hidden = layer(hidden, past_key_values=cache, observe=observer, **layer_inputs)
            cut = observer.cut(hidden, visual_mask, new_valid, kept_length)
            chosen = self.on_cut(cut) if self.on_cut is not None else None
            hidden, kept_index = chosen or cut.survivors
            past_valid = late_valid[:, : late_valid.shape[1] - tokens]
            valid = torch.cat([past_valid, take_tokens(new_valid, kept_index)], dim=1)
            layer_inputs = self.layer_inputs(hidden, take_tokens(position_ids, kept_index), valid)
            if self.pruning.trim_early_kv:
                _trim(cache, number + 1, kept_index)
        logits = self.lm_head(self.language_model.norm(hidden[:, -1:]))
        return DecoderOutput(logits, kept_index, cache.present)

    def layer_inputs(self, hidden: Tensor, position_ids: Tensor, valid: Tensor) -> dict[str, Any]:
        """What every layer of a stage is given beside the hidden states: rotary cos and sin, and the mask.

        hidden: [B, T, D]; position_ids: [B, T] int64; valid: [B, P+T] bool.
        """
        return {
            "position_embeddings": self.language_model.rotary_emb(hidden, position_ids=position_ids),
            "attention_mask": causal_mask(valid, hidden.shape[1]),
        }


class _Observer:
    """Looks over the scoring layer's shoulder: takes its query and key, gives it the soft mask."""

    def __init__(self, config: PruningConfig, visual_mask: Tensor, valid: Tensor) -> None:
        self.config, self.visual_mask, self.valid = config, visual_mask, valid

    def __call__(self, query: Tensor, key: Tensor, scale: float) -> Tensor:
        self.query, self.key, self.scale = query, key, scale
        self.seen = observe_attention(self.config, query, key, self.visual_mask, self.valid, scale)
        return self.seen.bias

    def cut(self, hidden: Tensor, visual: Tensor, new_valid: Tensor, kept_length: Tensor) -> Cut:
        """Drop tokens from the scoring layer's output, [B, T, D]."""
        survivors = drop_tokens(self.config, self.seen, hidden, self.visual_mask, new_valid, kept_length)
        inputs = (
            self.query,
            self.key,
            self.scale,
            visual,
            self.visual_mask,
            self.valid,
            new_valid,
            hidden,
            kept_length,
        )
        return Cut(*inputs, self.seen, survivors)


def _trim(cache: KeyValueCache, layers: int, kept_index: Tensor) -> None:
    """Drop the pruned new tokens from the caches of the first ``layers`` layers."""
    for layer in range(layers):
        past = cache.past[layer][0].shape[2]
        trimmed = []
        for whole in cache.present[layer]:
            kept = take_tokens(whole[:, :, past:].transpose(1, 2), kept_index).transpose(1, 2)
            trimmed.append(torch.cat([whole[:, :, :past], kept], dim=2))
        cache.present[layer] = trimmed[0], trimmed[1]
