"""One cut, in two moments: what the scoring layer's attention is told, and what leaves after that layer."""

from typing import NamedTuple

import torch
from torch import Tensor

from asap_export.pruning import operators
from asap_export.pruning.config import PruningConfig, Score
from asap_export.pruning.mask import causal_bias
from asap_export.pruning.scores import cut_weight, last_valid_row

__all__ = [
    "Observation",
    "Survivors",
    "criterion",
    "drop_tokens",
    "observe_attention",
    "prunable",
    "take_tokens",
]


class Observation(NamedTuple):
    """What the scoring layer's attention shows.

    bias: [B, 1, T, P+T] float32, to be added to the layer's own logits; score, mass, salience: [B, T] float32.
    """

    bias: Tensor
    score: Tensor
    mass: Tensor
    salience: Tensor


class Survivors(NamedTuple):
    """Hidden states [B, K, D] and positions [B, K] int64 (ascending, in the new tokens) after the cut."""

    hidden: Tensor
    kept_index: Tensor


def prunable(visual_mask: Tensor, new_mask: Tensor, kept_length: Tensor) -> Tensor:
    """The visual tokens [B, T] bool of the rows that lose any: all that the steps of a cut are told of.

    A row gives up its padding first, so it loses none where its valid tokens fit; without a visual token every
    step is the identity, and keeping all is the dense model.

    visual_mask, new_mask: [B, T] bool, the latter True for valid tokens; kept_length: [] int64.
    """
    return visual_mask & (new_mask.sum(dim=1, keepdim=True) > kept_length)


def observe_attention(
    config: PruningConfig,
    query: Tensor,
    key: Tensor,
    visual_mask: Tensor,
    attention_mask: Tensor,
    scale: float,
) -> Observation:
    """Scores of the new tokens from the scoring layer's query and key (after RoPE).

    query: [B, H, T, d]; key: [B, Hkv, P+T, d]; visual_mask: [B, T] bool; attention_mask: [B, P+T] bool.
    """
    tokens = query.shape[2]
    past = key.shape[2] - tokens
    new_mask = attention_mask[:, past:]
    if config.weighs_mass:
        bias, mass, salience = operators.mask(
            query, key, visual_mask, attention_mask, config.lambda_max, scale
        )
    else:
        mass = salience = torch.zeros(visual_mask.shape, device=query.device)
    if config.method != "asap" or not config.bidirectional:
        bias = causal_bias(attention_mask, tokens)
    if config.method == "random":
        generator = torch.Generator(device="cpu").manual_seed(config.seed)
        score = torch.rand(visual_mask.shape, generator=generator).to(query.device)
        return Observation(bias, score, mass, salience)
    chosen = criterion(config)
    if chosen == "salience":
        return Observation(bias, mass, mass, salience)
    weight = cut_weight(chosen, visual_mask, new_mask)
    rows, row_bias = query, bias
    if chosen == "last":  # one row decides: the others need no softmax
        last = last_valid_row(new_mask)
        rows = take_tokens(query.transpose(1, 2), last[:, None]).transpose(1, 2)
        row_bias = take_tokens(bias.transpose(1, 2), last[:, None]).transpose(1, 2)
        weight = take_tokens(weight, last[:, None])
    received = operators.score(rows, key, row_bias, weight, scale)
    return Observation(bias, received[:, past:], mass, salience)


def criterion(config: PruningConfig) -> Score:
    """The score that ranks visual tokens; FastV's is the attention of the last row, whatever ``score`` says."""
    return "last" if config.method == "fastv" else config.score


def drop_tokens(
    config: PruningConfig,
    seen: Observation,
    hidden: Tensor,
    visual_mask: Tensor,
    attention_mask: Tensor,
    kept_length: Tensor,
) -> Survivors:
    """The sequence that the layers after the cut see.

    hidden: [B, T, D], the scoring layer's output; visual_mask, attention_mask: [B, T] bool, of the new
    tokens; kept_length: [] int64.
    """
    index = operators.topk(seen.score, visual_mask, attention_mask, kept_length)
    if config.method == "asap" and config.merge:
        merged, index, _ = operators.merge(
            hidden, index, visual_mask, seen.salience, seen.mass, config.threshold
        )
        return Survivors(merged, index)
    return Survivors(take_tokens(hidden, index), index)


def take_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens at ``index`` [B, K] int64 of ``tokens`` [B, T, ...], as [B, K, ...]."""
    batch = torch.arange(tokens.shape[0], device=tokens.device)[:, None]
    return tokens[batch, index]
