"""Attention under a ``KeyBias``, and what its columns receive, as Triton kernels that never make a matrix.

Two passes, both in blocks: a row's log-sum-exp (with the attention's output, where that is asked for), then for
each block of keys the weighted sum of ``exp(logit - log-sum-exp)`` over all rows. Products of queries and keys are
accumulated in float32; all that follows is float32 too, but for the probabilities that meet the values, which have
the values' dtype as in every fused attention. They run on the current CUDA device, and with
TRITON_INTERPRET=1 on a CPU.
"""

import os
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from asap_export.pruning.device.bias import KeyBias

__all__ = ["Tile", "attention", "received_attention", "tile_for"]

_LOG2_E = 1.4426950408889634  # the kernels count in powers of 2, which is what the hardware has


class Tile(NamedTuple):
    """Rows and keys of a block, and how a GPU works on it."""

    rows: int
    keys: int
    warps: int
    stages: int


def tile_for(dtype: torch.dtype) -> Tile:
    """What fits a Hopper's shared memory with heads of 128; float32 takes twice the room. Triton's interpreter has
    room for anything, and takes the longer the more blocks there are."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return Tile(128, 128, 4, 1)
    return Tile(32, 32, 4, 2) if dtype == torch.float32 else Tile(128, 64, 8, 3)


@triton.jit
def _bias(before, after, opened, row, column, past, total):
    """Of a block, [rows, keys]; before, after: [keys]; opened: [rows]; row: among the new tokens."""
    place = row[:, None] + past
    later = tl.where(opened[:, None], after[None, :], float("-inf"))
    bias = tl.where(column[None, :] <= place, before[None, :], later)
    bias = tl.where(column[None, :] == place, 0.0, bias)
    return tl.where(column[None, :] < total, bias, float("-inf"))


@triton.jit
def attention_kernel(
    query, key, value, before, after, opened, output, log_sum,
    scale, tokens, total, heads, group,
    query_b, query_h, query_t, key_b, key_h, key_t, value_b, value_h, value_t, output_b, output_h, output_t,
    HEAD: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, WITH_OUTPUT: tl.constexpr,
):  # fmt: skip
    """Log-sum-exp of a block of rows of one head, and their attention's output."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column, feature = tl.arange(0, KEYS), tl.arange(0, WIDTH)
    is_row, is_feature = row < tokens, feature < HEAD
    at = batch * query_b + head * query_h + row[:, None] * query_t + feature[None, :]
    q = tl.load(query + at, mask=is_row[:, None] & is_feature[None, :], other=0.0)
    opens = tl.load(opened + batch * tokens + row, mask=is_row, other=0) != 0
    key += batch * key_b + (head // group) * key_h
    value += batch * value_b + (head // group) * value_h
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    summed = tl.zeros([ROWS], tl.float32)
    weighted = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(0, total, KEYS):
        at_key = start + column
        is_key = at_key < total
        inside = is_key[:, None] & is_feature[None, :]
        k = tl.load(key + at_key[:, None] * key_t + feature[None, :], mask=inside, other=0.0)
        early = tl.load(before + batch * total + at_key, mask=is_key, other=0.0)
        late = tl.load(after + batch * total + at_key, mask=is_key, other=0.0)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        logits += _bias(early, late, opens, row, at_key, total - tokens, total)
        found = tl.maximum(highest, tl.max(logits, 1))
        base = tl.where(found == float("-inf"), 0.0, found)  # nothing seen so far
        share = tl.exp2(logits - base[:, None])
        shrink = tl.exp2(highest - base)
        summed = summed * shrink + tl.sum(share, 1)
        if WITH_OUTPUT:
            v = tl.load(value + at_key[:, None] * value_t + feature[None, :], mask=inside, other=0.0)
            weighted = weighted * shrink[:, None]
            weighted += tl.dot(share.to(v.dtype), v, input_precision="ieee")
        highest = found
    tl.store(log_sum + tl.program_id(1).to(tl.int64) * tokens + row, highest + tl.log2(summed), mask=is_row)
    if WITH_OUTPUT:
        at = batch * output_b + head * output_h + row[:, None] * output_t + feature[None, :]
        mean = (weighted / summed[:, None]).to(output.dtype.element_ty)
        tl.store(output + at, mean, mask=is_row[:, None] & is_feature[None, :])


@triton.jit
def column_kernel(
    query, key, before, after, opened, weight, log_sum, received,
    scale, tokens, total, heads, group,
    query_b, query_h, query_t, key_b, key_h, key_t,
    HEAD: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """What a block of keys receives in one head: the sum over all rows, each with its weight."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    column = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    feature, block = tl.arange(0, WIDTH), tl.arange(0, ROWS)
    is_key, is_feature = column < total, feature < HEAD
    at = batch * key_b + (head // group) * key_h + column[:, None] * key_t + feature[None, :]
    k = tl.load(key + at, mask=is_key[:, None] & is_feature[None, :], other=0.0)
    early = tl.load(before + batch * total + column, mask=is_key, other=0.0)
    late = tl.load(after + batch * total + column, mask=is_key, other=0.0)
    query += batch * query_b + head * query_h
    log_sum += tl.program_id(1).to(tl.int64) * tokens
    summed = tl.zeros([KEYS], tl.float32)
    for start in range(0, tokens, ROWS):
        row = start + block
        is_row = row < tokens
        at_row = row[:, None] * query_t + feature[None, :]
        q = tl.load(query + at_row, mask=is_row[:, None] & is_feature[None, :], other=0.0)
        opens = tl.load(opened + batch * tokens + row, mask=is_row, other=0) != 0
        base = tl.load(log_sum + row, mask=is_row, other=float("inf"))
        share = tl.load(weight + batch * tokens + row, mask=is_row, other=0.0)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        logits += _bias(early, late, opens, row, column, total - tokens, total)
        summed += tl.sum(tl.exp2(logits - base[:, None]) * share[:, None], 0)
    tl.store(received + tl.program_id(1).to(tl.int64) * total + column, summed, mask=is_key)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: KeyBias,
    scale: float,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:
    """``softmax(q·kᵀ·scale + bias)·v`` [B, H, T, d], and the rows' log-sum-exp, in powers of 2, [B, H, T] float32.

    query: [B, H, T, d]; key, value: [B, Hkv, P+T, d], all of one dtype: float32, float16 or bfloat16.
    """
    # As the layers after it want it: [B, T, H, d] in memory.
    output = query.new_empty(query.shape[0], query.shape[2], query.shape[1], query.shape[3]).transpose(1, 2)
    return output, _log_sum_exp(query, key, value, bias, scale, tile, output)


def received_attention(
    query: Tensor,
    key: Tensor,
    bias: KeyBias,
    weight: Tensor,
    scale: float,
    log_sum: Tensor | None = None,
    tile: Tile | None = None,
) -> Tensor:
    """``scores.received_attention``: ``Σ_i weight_i · mean_h softmax(q·kᵀ·scale + bias)_ij``, [B, P+T] float32.

    query: [B, H, T, d]; key: [B, Hkv, P+T, d]; weight: [B, T] float32; log_sum: what ``attention`` returned for
    the same queries, keys and bias; without it that pass is run here.
    """
    query, key = _rows_together(query), _rows_together(key)
    if log_sum is None:
        log_sum = _log_sum_exp(query, key, key, bias, scale, tile, None)
    tile = tile or tile_for(query.dtype)
    batch, heads, tokens, head_dim = query.shape
    total = key.shape[2]
    received = torch.empty(batch, heads, total, dtype=torch.float32, device=query.device)
    column_kernel[(triton.cdiv(total, tile.keys), batch * heads)](
        query, key, *_in_powers_of_2(bias), weight.float().contiguous(), log_sum, received,
        scale * _LOG2_E, tokens, total, heads, heads // key.shape[1], *query.stride()[:3], *key.stride()[:3],
        HEAD=head_dim, WIDTH=_width(head_dim), ROWS=tile.rows, KEYS=tile.keys,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return received.mean(dim=1)


def _log_sum_exp(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: KeyBias,
    scale: float,
    tile: Tile | None,
    output: Tensor | None,
) -> Tensor:
    """[B, H, T] float32, in powers of 2; fills ``output`` [B, H, T, d] where there is one."""
    query, key, value = _rows_together(query), _rows_together(key), _rows_together(value)
    tile = tile or tile_for(query.dtype)
    batch, heads, tokens, head_dim = query.shape
    log_sum = torch.empty(batch, heads, tokens, dtype=torch.float32, device=query.device)
    target = query if output is None else output  # not written to without one
    attention_kernel[(triton.cdiv(tokens, tile.rows), batch * heads)](
        query, key, value, *_in_powers_of_2(bias), target, log_sum,
        scale * _LOG2_E, tokens, key.shape[2], heads, heads // key.shape[1],
        *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *target.stride()[:3],
        HEAD=head_dim, WIDTH=_width(head_dim), ROWS=tile.rows, KEYS=tile.keys, WITH_OUTPUT=output is not None,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return log_sum


def _in_powers_of_2(bias: KeyBias) -> tuple[Tensor, Tensor, Tensor]:
    before, after = (bias.before * _LOG2_E).contiguous(), (bias.after * _LOG2_E).contiguous()
    return before, after, bias.opened.to(torch.int8).contiguous()


def _rows_together(tensor: Tensor) -> Tensor:
    """A token's features lie side by side; where tokens and heads lie, the kernels are told."""
    return tensor if tensor.stride(3) == 1 else tensor.contiguous()


def _width(head_dim: int) -> int:
    """A block's width: products want a power of 2, and 16 at least."""
    return max(16, 1 << (head_dim - 1).bit_length())
