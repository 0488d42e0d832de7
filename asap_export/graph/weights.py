"""Pass: weights, inputs until now, become references into safetensors files beside the graph.

Where the checkpoint stores a tensor in the bundle's dtype, the reference points into the checkpoint's own shard,
which is linked into the bundle: no weight passes through Python. Otherwise the tensors of a graph are converted
one by one into a file of its own.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from asap_export.checkpoint.shards import TensorPlace
from asap_export.graph.tensor_file import STORAGE, TensorFile, cast, pieces

__all__ = ["Linker", "place_weights"]

Linker = Callable[[Path, str], object]  # puts a file at a path relative to the bundle


def place_weights(
    model: ir.Model,
    sources: Mapping[str, TensorPlace],
    dtype: str,
    folder: Path,
    link: Linker | None,
    on_tensor: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Point every weight of ``model`` to its bytes.

    sources: for each weight among the graph's inputs, its tensor in the checkpoint; dtype: "fp32", "fp16" or
    "bf16"; folder: the bundle being written; ``link`` puts a shard into it, None stands for a bundle without
    shards, in which every tensor is written anew; ``on_tensor`` hears of tensors that are written. Raises
    UserError where a value does not fit into the dtype.
    """
    as_stored = {name: place for name, place in sources.items() if link and place.dtype == dtype}
    if link:
        for shard in sorted({place.file for place in as_stored.values()}):
            link(shard, f"weights/{shard.name}")
    references: dict[str, ir.ExternalTensor] = {}
    for name, place in as_stored.items():
        references[name] = _reference(
            name, f"weights/{place.file.name}", place.offset, place.nbytes, place, dtype, folder
        )
    converted = {name: place for name, place in sources.items() if name not in as_stored}
    if converted:
        location = f"weights/{model.graph.name}.{dtype}.safetensors"
        offsets = _convert(converted, dtype, folder / location, on_tensor)
        itemsize = STORAGE[dtype].numpy.itemsize
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
        location, offset, nbytes, STORAGE[dtype].onnx, shape=ir.Shape(place.shape), name=name, base_dir=folder
    )


def _convert(
    places: Mapping[str, TensorPlace], dtype: str, target: Path, on_tensor: Callable[[int, int], None]
) -> dict[str, int]:
    """Write a safetensors file of converted tensors, one at a time; returns where each begins."""
    code = STORAGE[dtype].code
    with TensorFile(target, {name: (code, place.shape) for name, place in places.items()}) as file:
        for number, place in enumerate(places.values(), start=1):
            for piece in pieces(place):
                file.append(cast(piece, dtype, place))
            on_tensor(number, len(places))
    return file.offsets
