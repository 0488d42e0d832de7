"""Tensors read and written a piece at a time, so that no weight is in memory as a whole.

The safetensors library writes tensors that are all in memory; these are converted while they are written.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from asap_export.checkpoint.shards import TensorPlace
from asap_export.errors import UserError

__all__ = ["STORAGE", "Storage", "TensorFile", "cast", "pieces"]


@dataclass(frozen=True)
class Storage:
    """What a dtype is called in ONNX, in safetensors and in NumPy."""

    onnx: ir.DataType
    code: str
    numpy: np.dtype[Any]


STORAGE = {
    "fp64": Storage(ir.DataType.DOUBLE, "F64", np.dtype(np.float64)),  # of checkpoints only
    "fp32": Storage(ir.DataType.FLOAT, "F32", np.dtype(np.float32)),
    "fp16": Storage(ir.DataType.FLOAT16, "F16", np.dtype(np.float16)),
    "bf16": Storage(ir.DataType.BFLOAT16, "BF16", np.dtype(ml_dtypes.bfloat16)),
}
_ITEM_SIZES = {"U8": 1, "I8": 1, **{storage.code: storage.numpy.itemsize for storage in STORAGE.values()}}
_ALIGNMENT = 64  # bytes, of the first tensor


class TensorFile:
    """Context manager; ``append`` the tensors' bytes in the order of ``tensors``.

    tensors: safetensors dtype ("F16", "U8", "I8") and shape by name. ``offsets`` says where each begins.
    A file that is not completed is removed.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, tuple[str, tuple[int, ...]]],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
        begins: dict[str, int] = {}
        position = 0
        for name, (dtype, shape) in tensors.items():
            end = position + _ITEM_SIZES[dtype] * math.prod(shape)
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
            begins[name] = position
            position = end
        text = json.dumps(header).encode()
        text += b" " * (-(len(text) + 8) % _ALIGNMENT)
        start = 8 + len(text)
        self.path = path
        self.offsets = {name: start + begin for name, begin in begins.items()}
        self._end = start + position
        self._head = len(text).to_bytes(8, "little") + text

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("wb")
        self._file.write(self._head)
        return self

    def append(self, values: npt.NDArray[Any]) -> None:
        """The next bytes, row-major."""
        self._file.write(np.ascontiguousarray(values).tobytes())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        written = self._file.tell()
        self._file.close()
        if error is not None:
            self.path.unlink(missing_ok=True)
        elif written != self._end:
            raise RuntimeError(f"{self.path.name} was to have {self._end} bytes, written were {written}")


def pieces(place: TensorPlace, size: int = 1 << 24) -> Iterator[npt.NDArray[Any]]:
    """The values of a stored tensor in the order of its rows, memory-mapped, at most ``size`` at a time."""
    kind = STORAGE[place.dtype].numpy
    count = place.nbytes // kind.itemsize
    if not count:
        return
    values = np.memmap(place.file, dtype=kind, mode="r", offset=place.offset, shape=(count,))
    for start in range(0, count, size):
        yield values[start : start + size]


def cast(values: npt.NDArray[Any], dtype: str, place: TensorPlace) -> npt.NDArray[Any]:
    """``values`` of a stored tensor in another dtype; raises UserError where one does not fit into it."""
    with np.errstate(over="ignore"):
        converted: npt.NDArray[Any] = values.astype(STORAGE[dtype].numpy)
    overflow = np.isinf(converted) & np.isfinite(values)
    if overflow.any():
        worst = float(np.abs(values[overflow].astype(np.float64)).max())
        wider = "fp32" if place.dtype == "fp64" and dtype != "fp32" else place.dtype
        remedy = "no dtype of a bundle holds it" if wider == "fp64" else f"use --dtype {wider}"
        raise UserError(f"expected values of {place.name} to fit into {dtype}, found {worst:g}; {remedy}")
    return converted
