"""A checkpoint, opened: its config, sizes, and the place of every weight, with no weight loaded."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedConfig

from asap_export.checkpoint.config import generation_config, read_config
from asap_export.checkpoint.naming import by_parameter_name, empty_model
from asap_export.checkpoint.shards import TensorPlace, read_shard, shard_names
from asap_export.checkpoint.sizes import model_spec
from asap_export.checkpoint.sources import locate
from asap_export.progress import ProgressCallback, no_progress
from asap_export.spec import Dtype, ModelSpec

__all__ = ["Checkpoint", "open_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A validated LLaVA-NeXT or LLaVA-1.5 checkpoint on this machine.

    ``source`` is what the user called it ("demo", a folder or a hub id), ``revision`` the hub commit or None.
    ``tensors`` holds every parameter of transformers' current model class by its name there; tied parameters
    share a place.
    """

    folder: Path
    source: str
    revision: str | None
    config: PreTrainedConfig
    spec: ModelSpec
    tensors: dict[str, TensorPlace]


def open_checkpoint(
    source: str | Path | None = None,
    revision: str | None = None,
    progress: ProgressCallback = no_progress,
) -> Checkpoint:
    """Open a local folder, a hub id ("owner/name", downloaded) or, with None, the built-in demo.

    ``revision`` is a branch, a tag or a commit of a hub id; ``progress`` hears of a download.

    Raises UserError where it is no checkpoint, none that can be exported, or incomplete: a missing or
    truncated shard, a missing, unknown or misshapen weight.
    """
    place = locate(source, revision)
    config = read_config(place.folder / "config.json")
    shards = shard_names(place.folder)
    place.fetch(shards, progress)
    stored = [tensor for shard in shards for tensor in read_shard(place.folder / shard)]
    tensors = by_parameter_name(stored, empty_model(config), str(place.folder))
    spec = model_spec(config, generation_config(place.folder, config), _main_dtype(stored))
    return Checkpoint(place.folder, place.name, place.revision, config, spec, tensors)


def _main_dtype(stored: list[TensorPlace]) -> Dtype:
    """The dtype of most of the bytes: some checkpoints keep a few norms wider."""
    nbytes: Counter[Dtype] = Counter()
    for tensor in stored:
        nbytes[tensor.dtype] += tensor.nbytes
    return nbytes.most_common(1)[0][0]
