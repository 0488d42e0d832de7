"""How a checkpoint's weights get into a bundle, and what room they take there."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asap_export.bundle.refusals import nearest_folder
from asap_export.checkpoint.checkpoint import Checkpoint
from asap_export.checkpoint.loading import TORCH_DTYPES
from asap_export.checkpoint.shards import TensorPlace
from asap_export.exporter.request import ExportRequest
from asap_export.spec import Quantization

__all__ = ["WeightPlan", "plan_weights"]

# onnx's checker refuses external data with several hard links, so small checkpoints are copied, and links are
# for those whose second copy would hurt.
_LARGE = 2_000_000_000  # bytes


@dataclass(frozen=True)
class WeightPlan:
    """Where weights come from: shards that are linked or copied as they are, tensors that are written anew.

    ``sizes``: bytes of every parameter in the bundle's form, by its name in transformers' model class. ``disk``:
    bytes that have to be written.
    """

    way: Literal["link", "copy"]  # of the shards
    shards: tuple[str, ...]
    written_anew: int  # tensors
    sizes: Mapping[str, int]
    disk: int

    @property
    def total(self) -> int:
        """Bytes of all weights in the bundle's form; tied parameters count twice."""
        return sum(self.sizes.values())


def plan_weights(request: ExportRequest, checkpoint: Checkpoint, dtype: str, output: Path) -> WeightPlan:
    """How the weights of a request get into ``output``, in ``dtype`` ("fp32", "fp16" or "bf16")."""
    places = set(checkpoint.tensors.values())
    quantized = request.quantization is not None  # then all that stays is written anew
    kept = set() if quantized else {place for place in places if place.dtype == dtype}
    shards = sorted({place.file for place in kept})
    links = request.weights == "link" or (request.weights == "auto" and _stored(checkpoint) > _LARGE)
    sizes = _sizes(checkpoint, dtype, request.quantization)
    anew = {place: sizes[name] for name, place in checkpoint.tensors.items() if place not in kept}
    here = nearest_folder(output).stat().st_dev
    copied = [
        shard for shard in shards if not links or shard.stat().st_dev != here
    ]  # links end at a file system
    disk = sum(anew.values()) + sum(shard.stat().st_size for shard in copied)
    return WeightPlan(
        "link" if links else "copy", tuple(each.name for each in shards), len(anew), sizes, disk
    )


def _sizes(checkpoint: Checkpoint, dtype: str, quantization: Quantization | None) -> dict[str, int]:
    """Bytes of every parameter in the bundle's form."""
    itemsize = TORCH_DTYPES[dtype].itemsize
    embedding = checkpoint.tensors["model.language_model.embed_tokens.weight"]

    def bytes_each(name: str, place: TensorPlace) -> float:
        decoder = name.startswith(("model.language_model.", "lm_head.")) and place != embedding
        if quantization is None or not decoder or len(place.shape) < 2:
            return itemsize
        return quantization.bits / 8 + itemsize / (quantization.block_size or place.shape[1])

    return {
        name: int(math.prod(place.shape) * bytes_each(name, place))
        for name, place in checkpoint.tensors.items()
    }


def _stored(checkpoint: Checkpoint) -> int:
    """Bytes of the checkpoint's shards."""
    return sum(file.stat().st_size for file in {place.file for place in checkpoint.tensors.values()})
