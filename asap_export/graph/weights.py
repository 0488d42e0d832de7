"""Pass: weights, inputs until now, become references into safetensors files beside the graph.

Where the checkpoint stores a tensor in the bundle's dtype, the reference points into the checkpoint's own shard,
which is linked into the bundle: no weight passes through Python. Otherwise the tensors of a graph are converted
one by one into a file of its own.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir

from asap_export.checkpoint.shards import TensorPlace
from asap_export.errors import UserError

__all__ = ["Linker", "place_weights"]

Linker = Callable[[Path, str], object]  # puts a file at a path relative to the bundle

_TYPES: dict[str, tuple[ir.DataType, str, np.dtype]] = {
    "fp32": (ir.DataType.FLOAT, "F32", np.dtype(np.float32)),
    "fp16": (ir.DataType.FLOAT16, "F16", np.dtype(np.float16)),
    "bf16": (ir.DataType.BFLOAT16, "BF16", np.dtype(ml_dtypes.bfloat16)),
}


def place_weights(
    model: ir.Model,
    sources: Mapping[str, TensorPlace],
    dtype: str,
    folder: Path,
    link: Linker,
    on_tensor: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Point every weight of ``model`` to its bytes.

    sources: for each weight among the graph's inputs, its tensor in the checkpoint; dtype: "fp32", "fp16" or
    "bf16"; folder: the bundle being written; ``on_tensor`` hears of converted tensors. Raises UserError where
    a value does not fit into the dtype.
    """
    as_stored = {name: place for name, place in sources.items() if place.dtype == dtype}
    for shard in sorted({place.file for place in as_stored.values()}):
        link(shard, f"weights/{shard.name}")
    references: dict[str, ir.ExternalTensor] = {}
    for name, place in as_stored.items():
        references[name] = _reference(
            name, f"weights/{place.file.name}", place.offset, place.nbytes, place, dtype, folder
        )
    converted = {name: place for name, place in sources.items() if place.dtype != dtype}
    if converted:
        location = f"weights/{model.graph.name}.{dtype}.safetensors"
        offsets = _convert(converted, dtype, folder / location, on_tensor)
        itemsize = _TYPES[dtype][2].itemsize
        for name, place in converted.items():
            nbytes = itemsize * int(np.prod(place.shape))
            references[name] = _reference(name, location, offsets[name], nbytes, place, dtype, folder)
    for value in list(model.graph.inputs):
        if value.name in references:
            model.graph.inputs.remove(value)
            value.const_value = references[value.name]
            model.graph.register_initializer(value)


def _reference(
    name: str, location: str, offset: int, nbytes: int, place: TensorPlace, dtype: str, folder: Path
) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        location, offset, nbytes, _TYPES[dtype][0], shape=ir.Shape(place.shape), name=name, base_dir=folder
    )


def _convert(
    places: Mapping[str, TensorPlace], dtype: str, target: Path, on_tensor: Callable[[int, int], None]
) -> dict[str, int]:
    """Write a safetensors file of converted tensors, one at a time; returns where each begins."""
    _, code, kind = _TYPES[dtype]
    header: dict[str, object] = {}
    position = 0
    for name, place in places.items():
        end = position + kind.itemsize * int(np.prod(place.shape))
        header[name] = {"dtype": code, "shape": list(place.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)  # tensors begin at multiples of 64 bytes
    offsets: dict[str, int] = {}
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for number, (name, place) in enumerate(places.items(), start=1):
            offsets[name] = file.tell()
            for part in _pieces(place):
                file.write(_cast(part, place, dtype).tobytes())
            on_tensor(number, len(places))
    return offsets


def _pieces(place: TensorPlace, size: int = 1 << 24) -> Iterable[np.ndarray]:
    """The values of a stored tensor, memory-mapped, a few million at a time."""
    kind = _TYPES[place.dtype][2]
    count = place.nbytes // kind.itemsize
    if not count:
        return
    values = np.memmap(place.file, dtype=kind, mode="r", offset=place.offset, shape=(count,))
    for start in range(0, count, size):
        yield values[start : start + size]


def _cast(values: np.ndarray, place: TensorPlace, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        cast: np.ndarray = values.astype(_TYPES[dtype][2])
    overflow = np.isinf(cast) & np.isfinite(values)
    if overflow.any():
        worst = float(np.abs(values[overflow].astype(np.float32)).max())
        raise UserError(
            f"expected values of {place.name} to fit into {dtype}, found {worst:g}; use --dtype {place.dtype}"
        )
    return cast
