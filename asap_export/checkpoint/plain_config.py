"""A checkpoint's config.json read without transformers, for who wants its sizes and none of its weights.

Public configurations leave out what is a default of their model type, so the defaults are here once more; tests
hold them to transformers'.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from asap_export.checkpoint.sizes import ARCHITECTURES, TEXT_MODELS, VISION_MODEL, check_config, read_json
from asap_export.errors import UserError

__all__ = ["read_plain_config"]

_LLAMA = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": None, "head_dim": None, "vocab_size": 32000, "max_position_embeddings": 2048,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "layer_types": None,
}  # fmt: skip
_TEXT: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA
    | {
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "qwen2": _LLAMA
    | {
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "bos_token_id": None,
        "eos_token_id": None,
        "sliding_window": 4096,
        "use_sliding_window": False,
        "max_window_layers": 28,
    },
}
_CLIP = {"num_hidden_layers": 12, "image_size": 224, "patch_size": 32}
_LLAVAS_CLIP = {"num_hidden_layers": 24, "image_size": 336, "patch_size": 14}  # where nothing is said of it
_WHOLE = {
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "image_token_index": 32000,
}
_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "vocab_size", "max_position_embeddings",
)  # fmt: skip


def read_plain_config(file: Path) -> Any:
    """A config.json with what ``check_config`` and ``model_spec`` read, under transformers' names.

    Raises UserError where the file is missing or damaged and where the model is none that can be exported.
    """
    raw = read_json(file)
    try:
        config = _plain_config(raw)
    except (TypeError, ValueError, AttributeError) as error:
        found = f"expected {file} to describe a {ARCHITECTURES[raw['model_type']]}, found: {error}"
        raise UserError(found) from error
    check_config(file, config)
    return config


def _plain_config(raw: dict[str, Any]) -> SimpleNamespace:
    """Raises TypeError, ValueError or AttributeError where a value is of the wrong kind."""
    vision = raw.get("vision_config")
    whole = {**_WHOLE, **({"image_grid_pinpoints": _PINPOINTS} if raw["model_type"] == "llava_next" else {})}
    given = {name: raw.get(name, default) for name, default in whole.items()}
    if (strategy := given["vision_feature_select_strategy"]) not in ("default", "full"):
        raise ValueError(f"vision_feature_select_strategy {strategy!r}")
    tower = SimpleNamespace(
        **{"model_type": VISION_MODEL, **(_LLAVAS_CLIP if vision is None else _CLIP | vision)}
    )
    for name in _CLIP:
        _require_size(tower, name)
    return SimpleNamespace(
        **given,
        model_type=raw["model_type"],
        image_token_id=raw.get("image_token_id", given["image_token_index"]),
        dtype=raw.get("dtype") or raw.get("torch_dtype"),
        text_config=_text_config(raw.get("text_config") or {}),
        vision_config=tower,
    )


def _text_config(raw: dict[str, Any]) -> SimpleNamespace:
    model_type = raw.get("model_type", TEXT_MODELS[0])
    text = SimpleNamespace(**{**_TEXT.get(model_type, _LLAMA), **raw, "model_type": model_type})
    text.rope_parameters = _rope_parameters(raw)
    if text.num_key_value_heads is None:
        text.num_key_value_heads = text.num_attention_heads
    if text.head_dim is None:
        if text.hidden_size % text.num_attention_heads:
            raise ValueError(f"hidden_size {text.hidden_size} for {text.num_attention_heads} attention heads")
        text.head_dim = text.hidden_size // text.num_attention_heads
    for name in _SIZES:
        _require_size(text, name)
    if model_type == "qwen2":
        text.sliding_window = text.sliding_window if text.use_sliding_window else None
        if text.layer_types is None:
            slides = text.sliding_window is not None and text.num_hidden_layers > text.max_window_layers
            text.layer_types = ["sliding_attention" if slides else "full_attention"]
    return text


def _rope_parameters(raw: dict[str, Any]) -> dict[str, Any]:
    """With ``rope_type``; older configurations call them rope_scaling, and that type."""
    given = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    return {**given, "rope_type": given.get("rope_type", given.get("type", "default"))}


def _require_size(config: SimpleNamespace, name: str) -> None:
    value = getattr(config, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} {value!r}")
