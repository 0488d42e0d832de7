"""A checkpoint's config.json: whether this project can export it, and its sizes in plain numbers.

``config`` is transformers' own or a ``plain_config``: the same names, read without transformers.
"""

from pathlib import Path
from typing import Any

from asap_export.checkpoint.fields import check_fields
from asap_export.checkpoint.json_file import read_object
from asap_export.errors import UserError
from asap_export.model.anyres import TileGeometry, max_visual_tokens
from asap_export.spec import Dtype, ModelSpec

__all__ = ["check_config", "model_spec", "read_json"]

# Of each model type the class of the model, as config.json names it.
ARCHITECTURES = {
    "llava": "LlavaForConditionalGeneration",
    "llava_next": "LlavaNextForConditionalGeneration",
}
TEXT_MODELS = ("llama", "mistral", "qwen2")
VISION_MODEL = "clip_vision_model"
SUPPORTED = (
    f"{' or '.join(ARCHITECTURES.values())} (language model {', '.join(TEXT_MODELS)}; vision tower CLIP)"
)
# Their frequencies change with the sequence length, which a graph would freeze at the traced one.
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


def read_json(file: Path) -> dict[str, Any]:
    """The content of a config.json of LLaVA-NeXT or LLaVA-1.5.

    Raises UserError where the file is missing or damaged and where it is another model's.
    """
    try:
        raw = read_object(file)
    except FileNotFoundError as error:
        raise UserError(f"expected a checkpoint in {file.parent}, found no {file.name} there") from error
    model_type, named = str(raw.get("model_type"))[:100], raw.get("architectures")
    known = ARCHITECTURES.get(model_type)
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        named = None  # what it is instead, check_fields says
    if known is None or (named and named[0] != known):
        found = f"{named[0]} of model type {model_type}" if named else f"model type {model_type}"
        raise UserError(f"expected {SUPPORTED}, found {found} in {file}")
    if "quantization_config" in raw:
        raise UserError(
            f"expected unquantized weights, found a quantization_config in {file}; give the original"
        )
    check_fields(file, raw)
    return raw


def check_config(file: Path, config: Any) -> None:
    """Raise UserError where the model that ``config``, from ``file``, describes cannot be exported."""
    _check_language_model(file, config)
    _check_vision(file, config)


def _check_language_model(file: Path, config: Any) -> None:
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


def _check_vision(file: Path, config: Any) -> None:
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


def model_spec(config: Any, generation: Any, dtype: Dtype) -> ModelSpec:
    """The sizes of a checkpoint stored as ``dtype``; ``generation`` says first which
    tokens begin, end and pad, and may leave each of them, or all (None), to the config."""
    text, vision = config.text_config, config.vision_config
    pinpoints = tuple((int(h), int(w)) for h, w in getattr(config, "image_grid_pinpoints", ()))
    class_token = config.vision_feature_select_strategy == "full"
    geometry = TileGeometry(vision.image_size, vision.patch_size, pinpoints, class_token)

    def chosen(name: str) -> Any:
        value = getattr(generation, name, None)
        return value if value is not None else getattr(text, name, None)

    eos = chosen("eos_token_id")
    return ModelSpec(
        architecture=ARCHITECTURES[config.model_type],
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
