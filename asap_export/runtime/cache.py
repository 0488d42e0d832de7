"""The KV cache of a batch, and the masks and positions that go with it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from asap_export.runtime.buffers import Buffers
from asap_export.runtime.session import Tensor

__all__ = ["PLAIN_CACHES", "Cache", "CacheForm", "empty_cache", "kept_tokens", "present_name", "trimmed"]

Array = npt.NDArray[np.generic]
Integers = npt.NDArray[np.int64]

_CAPACITY, _UNTRIMMED = "capacity", "untrimmed"  # dimensions of a decoder for the CPU


class CacheForm(NamedTuple):
    """What a decoder does with its caches, by its inputs for them; in ``decoder.onnx`` none is special.

    ``growing`` ones may be buffers with more places than are filled. What goes on from ``untrimmed`` ones still
    holds the new tokens that were cut, and such an input has exactly P places in a step that cuts.
    """

    growing: tuple[str, ...] = ()
    untrimmed: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        inputs: Iterable[tuple[str, Sequence[str | int]]],
        outputs: Iterable[tuple[str, Sequence[str | int]]],
    ) -> "CacheForm":
        """From names and dimensions of the decoder's inputs and outputs."""
        given = list(inputs)
        untrimmed = {name for name, dims in outputs if _UNTRIMMED in dims}
        return cls(
            tuple(name for name, dims in given if _CAPACITY in dims),
            tuple(name for name, _ in given if present_name(name) in untrimmed),
        )

    def trimmed(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What ``decoder.onnx`` gives, from what this decoder gave for ``inputs`` whose caches are no longer than
        what they hold; all on the host."""
        found = dict(outputs)
        for name in self.untrimmed:
            whole = outputs[present_name(name)]
            found[present_name(name)] = trimmed(whole, inputs[name].shape[2], outputs["kept_index"])
        return found


PLAIN_CACHES = CacheForm()


@dataclass(frozen=True)
class Cache:
    """What the decoder remembers of a batch; each step makes a new one, so one can return to an old one.

    layers: decoder input -> keys or values, [B, Hkv, P, d], on the device; ``buffers`` have others in their first
    P places; mask: [B, P], 1 where a place holds a valid token; early_mask: [B, P'], the same for layers that keep
    pruned tokens, None where none does; fed: [B], valid tokens ever fed, pruned ones too: the next position id.
    """

    layers: Mapping[str, Tensor]
    mask: Integers
    early_mask: Integers | None
    fed: Integers
    buffers: Buffers | None = None

    @property
    def length(self) -> int:
        """Places of the longest layer."""
        mask = self.mask if self.early_mask is None else self.early_mask
        return int(mask.shape[1])

    def plain(self, new_mask: Integers) -> bool:
        """Whether the decoder for the CPU fuses its attention over these new tokens, mask [B, T]: none is padded
        but in idle rows, and several rows have no past or are fed one token each."""
        rows, new = new_mask.shape
        unpadded = bool(_attended(self.mask, new_mask).all())
        return unpadded and (rows == 1 or new == 1 or not self.mask.shape[1])

    def inputs(self, new_mask: Integers) -> dict[str, Tensor]:
        """The decoder's inputs that follow from the cache and the new tokens' mask [B, T]."""
        positions = self.fed[:, None] + np.cumsum(new_mask, axis=1) - 1
        inputs: dict[str, Tensor] = {
            **self.layers,
            "attention_mask": _attended(self.mask, new_mask),
            "position_ids": np.maximum(positions, 0),  # padding has no position, and nothing looks at it
        }
        if self.early_mask is not None:
            inputs["early_attention_mask"] = _attended(self.early_mask, new_mask)
        return inputs

    def grown(
        self,
        new_mask: Integers,
        kept_index: Integers,
        outputs: Mapping[str, Tensor],
        buffers: Buffers | None = None,
    ) -> "Cache":
        """The cache after a step.

        new_mask: [B, T] of what was fed; kept_index: [B, K], ascending places in it of what survived; ``buffers``
        that the step has written to.
        """
        buffered = buffers.arrays if buffers else {}
        names = (*self.layers, *(self.buffers.arrays if self.buffers else {}))
        kept_mask = np.take_along_axis(new_mask, kept_index, axis=1)
        early = self.early_mask
        return Cache(
            {name: outputs[present_name(name)] for name in names if name not in buffered},
            np.concatenate([self.mask, kept_mask], axis=1),
            None if early is None else np.concatenate([early, new_mask], axis=1),
            self.fed + new_mask.sum(axis=1),
            buffers,
        )


def _attended(mask: Integers, new_mask: Integers) -> Integers:
    """The attention mask [B, P+T] of new tokens, mask [B, T], behind cached ones [B, P].

    A row of padding alone is idle: nobody reads what it computes, nor goes on from it. It attends to everything,
    so that a batch in which some rows have ended is computed as one in which none has.
    """
    idle = ~new_mask.any(axis=1, keepdims=True)
    return np.where(idle, 1, np.concatenate([mask, new_mask], axis=1))


def kept_tokens(whole: Array, cached: int, kept_index: Integers) -> Array:
    """The new tokens that stay, [B, Hkv, K, d], of keys or values [B, Hkv, P+T, d] of ``cached`` = P tokens and
    T new ones; ``kept_index`` [B, K] says where they are among these."""
    return np.take_along_axis(whole, cached + kept_index[:, None, :, None], axis=2)


def trimmed(whole: Array, cached: int, kept_index: Integers) -> Array:
    """What ``decoder.onnx`` gives where another one leaves all tokens: [B, Hkv, P+T, d] -> [B, Hkv, P+K, d]."""
    return np.concatenate([whole[:, :, :cached], kept_tokens(whole, cached, kept_index)], axis=2)


def present_name(past: str) -> str:
    """The decoder's output that goes on from a cache: "past_key_values.3.key" -> "present.3.key"."""
    return past.replace("past_key_values", "present")


def empty_cache(
    batch: int, layers: int, kv_heads: int, head_dim: int, dtype: np.dtype[np.generic], early: bool
) -> Cache:
    """A cache of no tokens; ``early`` where some layers keep the tokens that the others prune."""
    nothing = np.zeros((batch, kv_heads, 0, head_dim), dtype)
    names = [f"past_key_values.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    mask = np.zeros((batch, 0), np.int64)
    return Cache(dict.fromkeys(names, nothing), mask, mask if early else None, np.zeros(batch, np.int64))
