"""The attention function of every decoder layer, and the cache it reads: where scoring meets transformers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

__all__ = ["ATTENTION", "KeyValueCache", "Observer"]

ATTENTION = "asap_export"  # the name under which transformers' layers find `attend`

# Called with query [B, H, T, d], key [B, Hkv, P+T, d] and the scale; returns the bias for the layer's logits.
Observer = Callable[[Tensor, Tensor, float], Tensor]


class KeyValueCache:
    """Keys and values per layer, [B, Hkv, P, d] each: the part of transformers' Cache that its layers use."""

    def __init__(self, past: list[tuple[Tensor, Tensor]]) -> None:
        self.past = past
        self.present: list[tuple[Tensor, Tensor]] = list(past)

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append the new keys and values [B, Hkv, T, d] of a layer; returns all of them, [B, Hkv, P+T, d]."""
        past_key, past_value = self.past[layer]
        self.present[layer] = torch.cat([past_key, key], dim=2), torch.cat([past_value, value], dim=2)
        return self.present[layer]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    observe: Observer | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention; in the scoring layer an observer sees query and key and sets the bias.

    query: [B, H, T, d] and key, value: [B, Hkv, P+T, d] after RoPE; attention_mask: [B, 1, T, P+T], bool or
    an additive bias. Returns [B, T, H, d].
    """
    if observe is not None:
        attention_mask = observe(query, key, scaling).to(query.dtype)
    output = scaled_dot_product(query, key, value, attention_mask, scaling)
    return output.transpose(1, 2).contiguous(), None


def scaled_dot_product(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """What a trace writes as one node: [B, H, T, d], from what ``attend`` was given."""
    grouped = query.shape[1] != key.shape[1]
    return nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped
    )


AttentionInterface.register(ATTENTION, attend)
