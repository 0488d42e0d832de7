"""A checkpoint's config.json: whether this project can export it, and its sizes in plain numbers."""

import json
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, LlavaConfig, LlavaNextConfig, PreTrainedConfig

from asap_export.errors import UserError
from asap_export.model.anyres import TileGeometry, max_visual_tokens
from asap_export.spec import Dtype, ModelSpec

__all__ = ["ARCHITECTURES", "TEXT_MODELS", "generation_config", "model_spec", "read_config"]

# Of each model type the class of the model, as config.json names it, and that of its configuration.
ARCHITECTURES: dict[str, tuple[str, type[PreTrainedConfig]]] = {
    "llava": ("LlavaForConditionalGeneration", LlavaConfig),
    "llava_next": ("LlavaNextForConditionalGeneration", LlavaNextConfig),
}
TEXT_MODELS = ("llama", "mistral", "qwen2")
VISION_MODEL = "clip_vision_model"
SUPPORTED = (
    f"{' or '.join(name for name, _ in ARCHITECTURES.values())} "
    f"(language model {', '.join(TEXT_MODELS)}; vision tower CLIP)"
)
# Their frequencies change with the sequence length, which a graph would freeze at the traced one.
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


def read_config(file: Path) -> PreTrainedConfig:
    """A LLaVA-NeXT or LLaVA-1.5 checkpoint's config.json.

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
    architecture, config_class = _architecture(file, raw)
    try:
        config = config_class.from_dict(raw)
    except Exception as error:  # whichever field is wrong, transformers' classes raise errors of many kinds
        reason = " ".join(str(error).split())
        raise UserError(f"expected {file} to describe a {architecture}, found: {reason}") from error
    _check_language_model(file, config)
    _check_vision(file, config)
    return config


def _architecture(file: Path, raw: dict[str, Any]) -> tuple[str, type[PreTrainedConfig]]:
    """The model's class name and its configuration's class."""
    model_type, named = str(raw.get("model_type")), raw.get("architectures")
    known = ARCHITECTURES.get(model_type)
    if known is None or (named and named[0] != known[0]):
        found = f"{named[0]} of model type {model_type}" if named else f"model type {model_type}"
        raise UserError(f"expected {SUPPORTED}, found {found} in {file}")
    if "quantization_config" in raw:
        raise UserError(
            f"expected unquantized weights, found a quantization_config in {file}; give the original"
        )
    return known


def _check_language_model(file: Path, config: PreTrainedConfig) -> None:
    text, vision = config.text_config, config.vision_config
    if text.model_type not in TEXT_MODELS or vision.model_type != VISION_MODEL:
        found = f"{text.model_type} and {vision.model_type}"
        raise UserError(f"expected {SUPPORTED}, found {found} in {file}")
    window = getattr(text, "sliding_window", None)
    slides = "sliding_attention" in (getattr(text, "layer_types", None) or ["sliding_attention"])
    if slides and window is not None and window < text.max_position_embeddings:
        raise UserError(
            f"expected attention over all {text.max_position_embeddings} positions, found sliding_window "
            f"{window} in {file}; the exported graphs attend to everything, so give a checkpoint without a "
            f"window, or set max_position_embeddings to {window}: up to there the window changes nothing"
        )
    rope = (getattr(text, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope in LENGTH_DEPENDENT_ROPE:
        raise UserError(
            f"expected rotary frequencies that do not depend on the sequence length, found rope type {rope} "
            f"in {file}; give a checkpoint with another rope type"
        )


def _check_vision(file: Path, config: PreTrainedConfig) -> None:
    chosen, most = config.vision_feature_layer, config.vision_config.num_hidden_layers
    chosen = [chosen] if isinstance(chosen, int) else chosen
    if not chosen or any(not -most - 1 <= layer <= most for layer in chosen):
        raise UserError(
            f"expected vision_feature_layer to name outputs of the {most} layers of the vision tower, "
            f"{-most - 1} to {most}, found {chosen} in {file}; mend it there"
        )
    if config.model_type == "llava":
        return
    if config.vision_feature_select_strategy != "default":
        raise UserError(
            f"expected vision_feature_select_strategy default in {file}, found "
            f"{config.vision_feature_select_strategy}; with a class token the features of a tile form no "
            "rectangle, and transformers cannot run such a LLaVA-NeXT either, so give a checkpoint without"
        )
    tile = config.vision_config.image_size
    uneven = [p for p in config.image_grid_pinpoints if len(p) != 2 or any(s < tile or s % tile for s in p)]
    if uneven or not config.image_grid_pinpoints:
        found = f"{uneven[0]}" if uneven else "none"
        raise UserError(
            f"expected image_grid_pinpoints in multiples of the {tile}-pixel tile, found {found} in {file}"
        )


def generation_config(folder: Path, config: PreTrainedConfig) -> GenerationConfig:
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


def model_spec(config: PreTrainedConfig, generation: GenerationConfig, dtype: Dtype) -> ModelSpec:
    """The sizes of a checkpoint stored as ``dtype``."""
    text, vision = config.text_config, config.vision_config
    pinpoints = tuple((int(h), int(w)) for h, w in getattr(config, "image_grid_pinpoints", ()))
    class_token = config.vision_feature_select_strategy == "full"
    geometry = TileGeometry(vision.image_size, vision.patch_size, pinpoints, class_token)
    eos = generation.eos_token_id if generation.eos_token_id is not None else text.eos_token_id

    def chosen(name: str) -> int | None:
        value = getattr(generation, name)
        return value if value is not None else getattr(text, name, None)

    return ModelSpec(
        architecture=ARCHITECTURES[config.model_type][0],
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
        class_token=class_token,
        max_visual_tokens=max_visual_tokens(geometry),
        dtype=dtype,
    )
