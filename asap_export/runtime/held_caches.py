"""Caches that a session keeps where it made them: to everyone else they are one handle, for all of its layers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from asap_export.runtime.session import Tensor

__all__ = ["HeldCaches", "cache_arrays"]

_Array = npt.NDArray[Any]


class HeldCaches(ABC):
    """The handle. What it stands for never changes."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """[B, Hkv, P, d] of each cache; P may count places that are not filled."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Of each."""

    @abstractmethod
    def arrays(self) -> dict[str, _Array]:
        """Copies by the decoder's input that takes them, [B, Hkv, P, d], filled places alone."""


def cache_arrays(caches: Mapping[str, Tensor]) -> dict[str, _Array]:
    """Caches by the decoder's input, whose session may be another one, as arrays."""
    first = next(iter(caches.values()))
    if isinstance(first, HeldCaches):
        return first.arrays()
    return {name: np.asarray(value) for name, value in caches.items()}
