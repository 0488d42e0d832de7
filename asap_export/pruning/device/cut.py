"""One cut on a device, in two moments: the scoring layer's attention with its scores, and what leaves after it."""

from typing import NamedTuple

import torch
from torch import Tensor

from asap_export.errors import UserError
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.cut import criterion, take_tokens
from asap_export.pruning.device.bias import KeyBias, causal_bias, soft_bias
from asap_export.pruning.device.merging import merge_kept
from asap_export.pruning.salience import attention_mass, normalised_salience
from asap_export.pruning.scores import last_valid_row, received_attention, row_attention, row_weight
from asap_export.pruning.topk import kept_positions

__all__ = ["Scores", "Survivors", "attend_and_score", "drop_tokens"]


class Scores(NamedTuple):
    """Of the new tokens, [B, T] float32 each: what ranks them, raw mass, salience."""

    score: Tensor
    mass: Tensor
    salience: Tensor


class Survivors(NamedTuple):
    """hidden: [B, K, D]; kept_index: [B, K] int64, ascending; settled: [] bool, see ``merging.Merged``."""

    hidden: Tensor
    kept_index: Tensor
    settled: Tensor


def attend_and_score(
    config: PruningConfig,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visual_mask: Tensor,
    scale: float,
    attention_mask: Tensor | None = None,
    fused: bool = False,
) -> tuple[Tensor, Scores]:
    """The scoring layer's attention [B, H, T, d], under the mask that the method asks for, and its scores.

    ``fused``: by the Triton kernels of ``kernels.py``, which never make the mask; else PyTorch's own attention
    is given all of it. query: [B, H, T, d]; key, value: [B, Hkv, P+T, d]; visual_mask: [B, T] bool;
    attention_mask: [B, P+T] bool, None where everything is valid. Raises UserError for the method random.
    """
    if config.method == "random":
        raise UserError("expected the method asap or fastv on a device, found random; use the reference")
    tokens, total = query.shape[2], key.shape[2]
    valid = attention_mask
    if valid is None:
        valid = torch.ones(query.shape[0], total, dtype=torch.bool, device=query.device)
    mass = salience = torch.zeros(visual_mask.shape, device=query.device)
    if config.weighs_mass:
        mass = attention_mass(query, key[:, :, total - tokens :], visual_mask, scale)
        salience = normalised_salience(mass, visual_mask)
    soft = config.method == "asap" and config.bidirectional
    bias = (
        soft_bias(salience, visual_mask, valid, config.lambda_max)
        if soft
        else causal_bias(visual_mask, valid)
    )
    log_sum = None
    if not soft and attention_mask is None and tokens == total:
        output = _attention(query, key, value, scale)
    elif fused:
        from asap_export.pruning.device import kernels

        output, log_sum = kernels.attention(query, key, value, bias, scale)
    else:
        output = _attention(query, key, value, scale, bias.matrix().to(query.dtype))
    score = mass
    if criterion(config) != "salience":
        score = _received(config, query, key, bias, visual_mask, valid, scale, fused, log_sum)
    return output, Scores(score[:, score.shape[1] - tokens :], mass, salience)


def _attention(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """Without a mask it is causal, which is what PyTorch has its fastest kernels for."""
    return torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _received(
    config: PruningConfig,
    query: Tensor,
    key: Tensor,
    bias: KeyBias,
    visual_mask: Tensor,
    valid: Tensor,
    scale: float,
    fused: bool,
    log_sum: Tensor | None,
) -> Tensor:
    """Attention that every key receives from the rows that the score averages, [B, P+T]."""
    new_valid = valid[:, valid.shape[1] - query.shape[2] :]
    if criterion(config) == "last":
        last = last_valid_row(new_valid)[:, None]
        row = take_tokens(query.transpose(1, 2), last)[:, 0]
        return row_attention(row, key, bias.rows(last)[:, 0], scale)
    weight = row_weight(criterion(config), visual_mask, new_valid)
    if fused:
        from asap_export.pruning.device import kernels

        return kernels.received_attention(query, key, bias, weight, scale, log_sum)
    return received_attention(query, key, bias.matrix(), weight, scale, exact=criterion(config) == "text")


def drop_tokens(
    config: PruningConfig,
    seen: Scores,
    hidden: Tensor,
    visual_mask: Tensor,
    kept_length: int,
    attention_mask: Tensor | None = None,
    rounds: int | None = None,
) -> Survivors:
    """The sequence that the layers after the cut see.

    hidden: [B, T, D], the scoring layer's output; visual_mask, attention_mask: [B, T] bool; rounds: see
    ``merging.merge_kept``.
    """
    valid = torch.ones_like(visual_mask) if attention_mask is None else attention_mask
    index = kept_positions(seen.score, visual_mask, valid, kept_length)
    if config.method == "asap" and config.merge:
        merged = merge_kept(hidden, index, visual_mask, seen.salience, seen.mass, config.threshold, rounds)
        return Survivors(merged.hidden, merged.kept_index, merged.settled)
    settled = torch.ones((), dtype=torch.bool, device=hidden.device)
    return Survivors(take_tokens(hidden, index), index, settled)
