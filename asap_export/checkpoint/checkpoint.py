"""A checkpoint, opened: its config, sizes, and the place of every weight, with no weight loaded."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import GenerationConfig, PreTrainedConfig

from asap_export.checkpoint.config import generation_config, read_config
from asap_export.checkpoint.naming import by_parameter_name, empty_model
from asap_export.checkpoint.shards import TensorPlace, read_shard, shard_names
from asap_export.checkpoint.sizes import model_spec
from asap_export.checkpoint.sources import Location, locate
from asap_export.progress import ProgressCallback, no_progress
from asap_export.spec import Dtype, ModelSpec

__all__ = ["Checkpoint", "Outline", "open_checkpoint", "open_outlined", "outline_checkpoint"]

_DTYPES: dict[str, Dtype] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Checkpoint:
    """A validated LLaVA-NeXT or LLaVA-1.5 checkpoint on this machine.

    ``source`` is what the user called it ("demo", a folder or a hub id), ``revision`` the hub commit or None.
    ``tensors`` holds every stored parameter of transformers' current model class by its name there; tied ones
    share a place. ``ignored`` names stored tensors that are no part of the model, ``absent`` parameters that
    are not stored and that nothing reads.
    """

    folder: Path
    source: str
    revision: str | None
    config: PreTrainedConfig
    spec: ModelSpec
    tensors: dict[str, TensorPlace]
    ignored: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outline:
    """What a checkpoint says of itself without its weights, which may still have to be downloaded.

    ``spec.dtype`` is what config.json says; how the weights are stored, decides when they are here.
    """

    place: Location
    config: PreTrainedConfig
    generation: GenerationConfig
    spec: ModelSpec


def outline_checkpoint(source: str | Path | None = None, revision: str | None = None) -> Outline:
    """A checkpoint's configuration: of a local folder, a hub id ("owner/name") or, with None, the built-in demo.

    ``revision`` is a branch, a tag or a commit of a hub id. Raises UserError where it is no checkpoint, or none
    that can be exported.
    """
    place = locate(source, revision)
    config = read_config(place.folder / "config.json")
    stated = _DTYPES.get(str(config.dtype).removeprefix("torch."), "fp16")
    generation = generation_config(place.folder, config)
    return Outline(place, config, generation, model_spec(config, generation, stated))


def open_checkpoint(
    source: str | Path | None = None,
    revision: str | None = None,
    progress: ProgressCallback = no_progress,
) -> Checkpoint:
    """``open_outlined`` of ``outline_checkpoint``, where nothing is to be looked at in between."""
    return open_outlined(outline_checkpoint(source, revision), progress)


def open_outlined(outline: Outline, progress: ProgressCallback = no_progress) -> Checkpoint:
    """Find every weight of a checkpoint; ``progress`` hears of a download.

    Raises UserError where it is incomplete: a missing or truncated shard, a missing, unknown or misshapen weight.
    """
    place, config = outline.place, outline.config
    shards = shard_names(place.folder)
    place.fetch(shards, progress)
    stored = [tensor for shard in shards for tensor in read_shard(place.folder / shard)]
    model = empty_model(config, place.folder / "config.json")
    tensors, ignored = by_parameter_name(stored, model, str(place.folder))
    absent = tuple(name for name in model.state_dict() if name not in tensors)
    spec = replace(outline.spec, dtype=_main_dtype(tensors.values()))
    return Checkpoint(place.folder, place.name, place.revision, config, spec, tensors, tuple(ignored), absent)


def _main_dtype(weights: Iterable[TensorPlace]) -> Dtype:
    """The dtype of most of the bytes: some checkpoints keep a few norms wider. No bundle is in float64."""
    nbytes: Counter[str] = Counter()
    for tensor in set(weights):
        nbytes[tensor.dtype] += tensor.nbytes
    halves: dict[str, Dtype] = {"fp16": "fp16", "bf16": "bf16"}
    return halves.get(nbytes.most_common(1)[0][0], "fp32")
