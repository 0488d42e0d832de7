"""What a cost is counted for: a preset, a config.json, a checkpoint or a bundle, without its weights."""

from dataclasses import dataclass
from pathlib import Path

from asap_export.bundle import MANIFEST, Bundle
from asap_export.bundle.presets import find_preset
from asap_export.checkpoint.plain_config import read_plain_config
from asap_export.checkpoint.sizes import model_spec
from asap_export.checkpoint.sources import locate
from asap_export.errors import UserError
from asap_export.pruning.config import DEFAULT_KEEP_RATIO, Budget, PruningConfig
from asap_export.pruning.flops import DecoderShape
from asap_export.spec import Dtype

__all__ = ["CountedModel", "counted_model"]

_DTYPES: dict[str, Dtype] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class CountedModel:
    """A model's decoder, the most visual tokens of one image, and the settings that come with it."""

    name: str
    shape: DecoderShape
    max_visual_tokens: int
    dtype: str  # "fp32", "fp16" or "bf16"
    pruning: PruningConfig
    budget: Budget


def counted_model(source: str | Path | None, revision: str | None = None) -> CountedModel:
    """The subject of ``source``, None being the demo checkpoint.

    Else it is a bundle, a folder with a config.json, such a file, a preset's name, or a hub id; only a hub id
    that is no preset's, or has a ``revision`` (a branch, a tag or a commit), needs the network. Raises UserError
    where it is none of these, or a revision would do nothing.
    """
    path = Path(source) if source is not None else None
    if path is not None and revision is None:
        if (path / MANIFEST).is_file():
            return _of_bundle(Bundle.open(path))
        if path.is_file():
            return _of_config(path, str(path))
        if not path.exists() and (preset := find_preset(str(source))):
            return _undecided(preset.name, preset.decoder, preset.max_visual_tokens, "fp16")

    try:
        place = locate(source, revision, ("config.json",))
    except UserError as error:
        if path is None or path.exists() or "/" in str(source):
            raise
        raise UserError(
            f"{error.message}; asap-export flops --list names those known without a download"
        ) from error
    return _of_config(place.folder / "config.json", place.name)


def _undecided(name: str, shape: DecoderShape, max_visual_tokens: int, dtype: str) -> CountedModel:
    return CountedModel(
        name, shape, max_visual_tokens, dtype, PruningConfig(), Budget(ratio=DEFAULT_KEEP_RATIO)
    )


def _of_bundle(bundle: Bundle) -> CountedModel:
    manifest = bundle.manifest
    spec = manifest.model
    return CountedModel(
        str(bundle.path), DecoderShape.of(spec), spec.max_visual_tokens, manifest.dtype, manifest.pruning,
        manifest.budget,
    )  # fmt: skip


def _of_config(file: Path, name: str) -> CountedModel:
    config = read_plain_config(file)
    dtype = _DTYPES.get(str(config.dtype).removeprefix("torch."), "fp16")
    spec = model_spec(config, None, dtype)
    return _undecided(name, DecoderShape.of(spec), spec.max_visual_tokens, dtype)
