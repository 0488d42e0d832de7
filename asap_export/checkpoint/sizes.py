"""A checkpoint's config.json: whether this project can export it, and its sizes in plain numbers."""

import json
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, LlavaNextConfig

from asap_export.errors import UserError
from asap_export.model.anyres import TileGeometry, max_visual_tokens
from asap_export.spec import ModelSpec

__all__ = ["ARCHITECTURE", "TEXT_MODELS", "generation_config", "model_spec", "read_config"]

ARCHITECTURE = "LlavaNextForConditionalGeneration"
TEXT_MODELS = ("llama", "mistral", "qwen2")
VISION_MODEL = "clip_vision_model"
SUPPORTED = f"{ARCHITECTURE} (language model {', '.join(TEXT_MODELS)}; vision tower CLIP)"
# Their frequencies change with the sequence length, which a graph would freeze at the traced one.
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


def read_config(file: Path) -> LlavaNextConfig:
    """A LLaVA-NeXT checkpoint's config.json.

    Raises UserError where the file is missing or damaged and where the model is none that can be exported.
    """
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"expected a checkpoint in {file.parent}, found no {file.name} there") from error
    except (ValueError, OSError) as error:
        raise UserError(f"expected JSON in {file}, found something else; download it again") from error
    if not isinstance(raw, dict):
        raise UserError(f"expected a JSON object in {file}, found a {type(raw).__name__}")
    _check_architecture(file, raw)
    try:
        config = LlavaNextConfig.from_dict(raw)
    except Exception as error:  # whichever field is wrong, transformers' classes raise errors of many kinds
        reason = " ".join(str(error).split())
        raise UserError(f"expected {file} to describe a LLaVA-NeXT model, found: {reason}") from error
    _check_parts(file, config)
    return config


def _check_architecture(file: Path, raw: dict[str, Any]) -> None:
    architectures = raw.get("architectures") or [ARCHITECTURE]
    model_type = raw.get("model_type")
    if model_type != "llava_next" or architectures[0] != ARCHITECTURE:
        found = architectures[0] if architectures[0] != ARCHITECTURE else f"model type {model_type}"
        raise UserError(f"expected {SUPPORTED}, found {found} in {file}")
    if "quantization_config" in raw:
        raise UserError(
            f"expected unquantized weights, found a quantization_config in {file}; give the original"
        )


def _check_parts(file: Path, config: LlavaNextConfig) -> None:
    text, vision = config.text_config, config.vision_config
    if text.model_type not in TEXT_MODELS or vision.model_type != VISION_MODEL:
        found = f"{text.model_type} and {vision.model_type}"
        raise UserError(f"expected {SUPPORTED}, found {found} in {file}")
    window = getattr(text, "sliding_window", None)
    if window is not None and window < text.max_position_embeddings:
        raise UserError(
            f"expected attention over all {text.max_position_embeddings} positions, "
            f"found sliding_window {window} in {file}; the exported graphs attend to everything, so give a "
            "checkpoint without a window"
        )
    rope = (getattr(text, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope in LENGTH_DEPENDENT_ROPE:
        raise UserError(
            f"expected rotary frequencies that do not depend on the sequence length, found rope type {rope} "
            f"in {file}; give a checkpoint with another rope type"
        )
    if config.vision_feature_select_strategy != "default":
        raise UserError(
            f"expected vision_feature_select_strategy default in {file}, "
            f"found {config.vision_feature_select_strategy}; give a checkpoint without class tokens, "
            "with them the patches of a tile form no rectangle"
        )
    tile = vision.image_size
    uneven = [p for p in config.image_grid_pinpoints if len(p) != 2 or any(s < tile or s % tile for s in p)]
    if uneven or not config.image_grid_pinpoints:
        found = f"{uneven[0]}" if uneven else "none"
        raise UserError(
            f"expected image_grid_pinpoints in multiples of the {tile}-pixel tile, found {found} in {file}"
        )


def generation_config(folder: Path, config: LlavaNextConfig) -> GenerationConfig:
    """The folder's generation_config.json; where it has none, what transformers makes of the config.

    Raises UserError where the file is damaged.
    """
    file = folder / "generation_config.json"
    if not file.is_file():
        return GenerationConfig.from_model_config(config)
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"expected generation settings in {file}, found other content; mend or remove it"
        ) from error


def model_spec(config: LlavaNextConfig, generation: GenerationConfig, dtype: str) -> ModelSpec:
    """The sizes of a checkpoint stored as ``dtype`` ("fp32", "fp16" or "bf16")."""
    text, vision = config.text_config, config.vision_config
    pinpoints = tuple((int(height), int(width)) for height, width in config.image_grid_pinpoints)
    eos = generation.eos_token_id if generation.eos_token_id is not None else text.eos_token_id

    def chosen(name: str) -> int | None:
        value = getattr(generation, name)
        return value if value is not None else getattr(text, name, None)

    return ModelSpec(
        architecture=ARCHITECTURE,
        text_model_type=text.model_type,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        vocab_size=text.vocab_size,
        max_position_embeddings=text.max_position_embeddings,
        image_token_id=config.image_token_id,
        eos_token_ids=tuple(eos) if isinstance(eos, list | tuple) else (() if eos is None else (eos,)),
        bos_token_id=chosen("bos_token_id"),
        pad_token_id=chosen("pad_token_id"),
        tile_size=vision.image_size,
        patch_size=vision.patch_size,
        grid_pinpoints=pinpoints,
        max_visual_tokens=max_visual_tokens(TileGeometry(vision.image_size, vision.patch_size, pinpoints)),
        dtype=dtype,
    )
