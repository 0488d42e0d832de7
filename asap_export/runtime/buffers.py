"""Caches with room to grow: new tokens are written behind the cached ones, which are not copied at every step."""

from collections.abc import Collection, Mapping, Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt

__all__ = ["Buffers"]

_Array = npt.NDArray[np.generic]
_GRANULE = 128  # places; a buffer grows by an eighth and this, to a multiple of it


class Buffers:
    """Keys and values of some layers, arrays [B, Hkv, capacity, d] by the decoder's input that takes them.

    ``filled`` places of them belong to somebody. A cache owns the first ones, as many as it has places, and they
    never change; what lies behind them, zeros at first, is the next writer's who claims it.
    """

    def __init__(self, arrays: Mapping[str, _Array], filled: int) -> None:
        self.arrays = dict(arrays)
        self.filled = filled
        self._lock = Lock()

    @classmethod
    def empty(cls, names: Sequence[str], rows: int, kv_heads: int, head_dim: int, dtype: np.dtype[np.generic],
              places: int) -> "Buffers":  # fmt: skip
        """Nothing yet, and room for ``places`` and some more."""
        shape = rows, kv_heads, _capacity(places), head_dim
        return cls({name: np.zeros(shape, dtype) for name in names}, 0)

    @property
    def capacity(self) -> int:
        places: int = next(iter(self.arrays.values())).shape[2]
        return places

    def claimed(self, length: int, places: int) -> "Buffers":
        """Buffers that begin with this one's first ``length`` places; those up to ``places`` are for the caller.

        This one, where there is room and nobody else went on from the same place; otherwise a copy.
        """
        with self._lock:
            if self.filled == length and places <= self.capacity:
                self.filled = places
                return self
        copies = {}
        for name, array in self.arrays.items():
            rows, kv_heads, _, head_dim = array.shape
            copies[name] = np.zeros((rows, kv_heads, _capacity(places), head_dim), array.dtype)
            copies[name][:, :, :length] = array[:, :, :length]
        return Buffers(copies, places)

    def content(self, length: int, names: Collection[str] | None = None) -> dict[str, _Array]:
        """The first ``length`` places alone of the arrays of these names, or of all, [B, Hkv, length, d]."""
        chosen = self.arrays if names is None else names
        return {name: np.ascontiguousarray(self.arrays[name][:, :, :length]) for name in chosen}

    def write(self, name: str, length: int, tokens: _Array) -> None:
        """Put tokens [B, Hkv, K, d] behind the first ``length`` places of an array, once they are claimed."""
        self.arrays[name][:, :, length : length + tokens.shape[2]] = tokens


def _capacity(places: int) -> int:
    return -(-(places + places // 8 + _GRANULE) // _GRANULE) * _GRANULE
