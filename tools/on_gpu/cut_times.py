"""Where the time of a cut goes: each of its steps alone, and the scoring layer's attention in every form."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asap_export.pruning.config import PruningConfig
from asap_export.pruning.consolidation import merge_kept as reference_merge
from asap_export.pruning.cut import observe_attention, take_tokens
from asap_export.pruning.device.bias import KeyBias, soft_bias
from asap_export.pruning.device.merging import merge_kept
from asap_export.pruning.mask import causal_mask
from asap_export.pruning.salience import attention_mass, normalised_salience
from asap_export.pruning.scores import row_attention, row_weight
from asap_export.pruning.topk import kept_positions
from on_gpu.setting import Setting
from on_gpu.timing import Call, interleaved, summary


class Layer(NamedTuple):
    """What a scoring layer has at hand: query [1, H, T, d], key and value [1, Hkv, T, d], hidden [1, T, D], masks
    [1, T] bool, the scale of its logits."""

    query: Tensor
    key: Tensor
    value: Tensor
    hidden: Tensor
    visual: Tensor
    valid: Tensor
    scale: float

    @property
    def bias(self) -> KeyBias:
        salience = normalised_salience(
            attention_mass(self.query, self.key, self.visual, self.scale), self.visual
        )
        return soft_bias(salience, self.visual, self.valid, PruningConfig().lambda_max)


def random_layer(setting: Setting) -> Layer:
    """Heads behind tokens in memory, as transformers' projections leave them."""
    shape, device = setting.shape, setting.device
    noise = torch.Generator(device).manual_seed(2)

    def heads(count: int) -> Tensor:
        sizes = 1, setting.tokens, count, shape.head_dim
        return torch.randn(sizes, generator=noise, device=device).to(setting.dtype).transpose(1, 2)

    hidden = torch.randn(1, setting.tokens, shape.hidden_size, generator=noise, device=device)
    visual = torch.zeros(1, setting.tokens, dtype=torch.bool, device=device)
    visual[:, setting.before : setting.before + setting.visual] = True
    return Layer(
        heads(shape.heads),
        heads(shape.kv_heads),
        heads(shape.kv_heads),
        hidden.to(setting.dtype),
        visual,
        torch.ones_like(visual),
        shape.head_dim**-0.5,
    )


def attention_times(setting: Setting, fused: bool = False) -> dict[str, Any]:
    """One layer's attention: causal without a mask, with the mask as bool and as bias, and in the kernels."""
    layer = random_layer(setting)
    query, key, value, scale = layer.query, layer.key, layer.value, layer.scale
    attend = partial(
        torch.nn.functional.scaled_dot_product_attention,
        query,
        key,
        value,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    bias = layer.bias
    calls: dict[str, Call] = {"causal, no mask": partial(attend, is_causal=True)}
    if fused:
        from on_gpu.prefills import need_triton

        need_triton(setting)
        from asap_export.pruning.device import kernels

        tiles = {"": None}
        if setting.dtype != torch.float32:
            tiles |= {
                str(tuple(tile)): tile
                for tile in (
                    kernels.Tile(128, 64, 4, 3),
                    kernels.Tile(128, 128, 8, 2),
                    kernels.Tile(64, 64, 4, 3),
                )
            }
        for name, tile in tiles.items():
            attention = partial(kernels.attention, query, key, value, bias, scale, tile)
            calls[f"soft mask in the kernel {name}".strip()] = attention
    else:
        bool_mask = causal_mask(layer.valid, setting.tokens)
        matrix = bias.matrix().to(query.dtype)
        calls["causal, bool mask"] = partial(attend, attn_mask=bool_mask)
        calls["soft mask as a matrix"] = partial(attend, attn_mask=matrix)
        calls["making that matrix"] = lambda: bias.matrix().to(query.dtype)
    return _summaries(calls, setting)


def cut_times(setting: Setting, fused: bool = False) -> dict[str, Any]:
    """The steps of a cut one by one, in the device's form and where it differs in the reference's."""
    layer, config = random_layer(setting), PruningConfig()
    query, key, visual, valid, scale = layer.query, layer.key, layer.visual, layer.valid, layer.scale
    if fused:
        from on_gpu.prefills import need_triton

        need_triton(setting)
        from asap_export.pruning.device import kernels

        weight, bias = row_weight("received", visual, valid), layer.bias
        _, log_sum = kernels.attention(query, key, layer.value, bias, scale)
        received = partial(kernels.received_attention, query, key, bias, weight, scale)
        return _summaries(
            {"received, both passes": received, "received, second pass": partial(received, log_sum)}, setting
        )
    mass = attention_mass(query, key, visual, scale)
    salience = normalised_salience(mass, visual)
    last = torch.full((1, 1), setting.tokens - 1, device=setting.device)
    row, row_bias = query[:, :, -1], layer.bias.rows(last)[:, 0]
    index = kept_positions(mass, visual, valid, setting.text + setting.keep)
    merging = (layer.hidden, index, visual, salience, mass, config.threshold)
    calls: dict[str, Call] = {
        "mass": partial(attention_mass, query, key, visual, scale),
        "salience": partial(normalised_salience, mass, visual),
        "score of the last row": partial(row_attention, row, key, row_bias, scale),
        "top-k": partial(kept_positions, mass, visual, valid, setting.text + setting.keep),
        "dropping without merging": partial(take_tokens, layer.hidden, index),
        "reference: observation": partial(observe_attention, config, query, key, visual, valid, scale),
        "reference: merging": partial(reference_merge, *merging),
    }
    for rounds in (1, 16, 64):
        calls[f"merging, {rounds} rounds"] = partial(merge_kept, *merging, rounds)
    return _summaries(calls, setting)


def _summaries(calls: Mapping[str, Call], setting: Setting) -> dict[str, Any]:
    times = interleaved(calls, setting.rounds, setting.device, queued=True)
    return {name: summary(each) for name, each in times.items()}
