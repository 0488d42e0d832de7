"""Known public checkpoints: their sizes, and engine limits that suit them (engines/presets/*.yaml)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from asap_export.bundle.manifest import Limits
from asap_export.pruning.flops import DecoderShape

__all__ = ["Preset", "find_preset", "presets"]

_FOLDER = Path(__file__).parents[1] / "presets"


@dataclass(frozen=True)
class Preset:
    """One public checkpoint, and the largest request that its engines are sensibly built for."""

    name: str
    model: str  # hub id
    text_model_type: str
    decoder: DecoderShape
    rope_theta: float
    rms_norm_eps: float
    max_position_embeddings: int
    max_visual_tokens: int  # of one image, newline tokens included
    limits: Limits


@cache
def presets() -> dict[str, Preset]:
    """All presets by name."""
    return {preset.name: preset for preset in _read()}


def find_preset(source: str) -> Preset | None:
    """The preset of a checkpoint by its name or hub id ("llava-hf/" and "-hf" may be left out), or None."""
    return presets().get(source.lower().removeprefix("llava-hf/").removesuffix("-hf"))


def _read() -> Iterator[Preset]:
    for file in sorted(_FOLDER.glob("*.yaml")):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        limits, decoder = Limits(**content.pop("limits")), DecoderShape(**content.pop("decoder"))
        yield Preset(name=file.stem, decoder=decoder, limits=limits, **content)
