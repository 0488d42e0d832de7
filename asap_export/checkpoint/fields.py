"""The types and bounds of what a checkpoint's small files may say, checked before transformers sees it.

Only fields that an export reads are here. None stands for what is left out; bounds are those of a manifest.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from asap_export.errors import UserError
from asap_export.spec import Count, Layers, Name, Number, Pixels, Token

__all__ = ["FILES", "check_fields"]

_Positive = Annotated[float, Meta(gt=0, le=1e30)]
_Epsilon = Annotated[float, Meta(ge=0, le=1)]
_Float = Annotated[float, Meta(ge=-1e30, le=1e30)]
_Layer = Annotated[int, Meta(ge=-4097, le=4096)]
_Word = Annotated[str, Meta(min_length=1, max_length=256)]
_Pinpoints = Annotated[list[list[Pixels]], Meta(max_length=256)]
_Ends = Number | list[Number]
_Edges = dict[str, Pixels | None]


@dataclass
class _Rope:
    rope_type: _Word | None = None
    type: _Word | None = None
    rope_theta: _Positive | None = None
    factor: _Positive | None = None
    low_freq_factor: _Positive | None = None
    high_freq_factor: _Positive | None = None
    original_max_position_embeddings: Count | None = None


@dataclass
class _Text:
    model_type: _Word | None = None
    hidden_size: Count | None = None
    intermediate_size: Count | None = None
    num_hidden_layers: Layers | None = None
    num_attention_heads: Count | None = None
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    vocab_size: Count | None = None
    max_position_embeddings: Count | None = None
    hidden_act: _Word | None = None
    rms_norm_eps: _Epsilon | None = None
    attention_bias: bool | None = None
    mlp_bias: bool | None = None
    tie_word_embeddings: bool | None = None
    rope_theta: _Positive | None = None
    rope_parameters: _Rope | None = None
    rope_scaling: _Rope | None = None
    sliding_window: Token | None = None
    use_sliding_window: bool | None = None
    max_window_layers: Number | None = None
    layer_types: list[_Word] | None = None
    bos_token_id: Token | None = None
    eos_token_id: _Ends | None = None
    pad_token_id: Token | None = None


@dataclass
class _Vision:
    model_type: _Word | None = None
    hidden_size: Count | None = None
    intermediate_size: Count | None = None
    num_hidden_layers: Layers | None = None
    num_attention_heads: Count | None = None
    num_channels: Annotated[int, Meta(ge=3, le=3)] | None = None
    image_size: Pixels = 224
    patch_size: Pixels = 32
    hidden_act: _Word | None = None
    layer_norm_eps: _Epsilon | None = None


@dataclass
class _Config:
    model_type: str
    architectures: list[str] | None = None
    text_config: _Text | None = None
    vision_config: _Vision | None = None
    image_grid_pinpoints: _Pinpoints | None = None
    image_token_index: Number | None = None
    image_token_id: Number | None = None
    vision_feature_layer: _Layer | Annotated[list[_Layer], Meta(max_length=4096)] | None = None
    vision_feature_select_strategy: _Word | None = None
    projector_hidden_act: _Word | None = None
    multimodal_projector_bias: bool | None = None
    tie_word_embeddings: bool | None = None
    dtype: str | None = None
    torch_dtype: str | None = None


@dataclass
class _Generation:
    do_sample: bool | None = None
    max_new_tokens: Count | None = None
    min_new_tokens: Number | None = None
    temperature: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    top_k: Token | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    no_repeat_ngram_size: Number | None = None
    stop_strings: Name | Annotated[list[Name], Meta(max_length=64)] | None = None
    bos_token_id: Token | None = None
    eos_token_id: _Ends | None = None
    pad_token_id: Token | None = None


@dataclass
class _Images:
    image_processor_type: _Word | None = None
    feature_extractor_type: _Word | None = None
    processor_class: _Word | None = None
    image_grid_pinpoints: _Pinpoints | None = None
    size: Pixels | _Edges | None = None
    crop_size: Pixels | _Edges | None = None
    do_resize: bool | None = None
    do_center_crop: bool | None = None
    do_rescale: bool | None = None
    do_normalize: bool | None = None
    do_convert_rgb: bool | None = None
    do_pad: bool | None = None
    resample: Number | None = None
    rescale_factor: _Positive | None = None
    image_mean: _Float | list[_Float] | None = None
    image_std: _Positive | list[_Positive] | None = None


@dataclass
class _Processor:
    processor_class: _Word | None = None
    image_processor: _Images | None = None
    image_token: _Word | dict[str, Any] | None = None
    num_additional_image_tokens: Number | None = None
    patch_size: Pixels | None = None
    vision_feature_select_strategy: _Word | None = None
    chat_template: str | dict[str, str] | None = None


@dataclass
class _TokenizerSettings:
    tokenizer_class: _Word | None = None
    processor_class: _Word | None = None
    bos_token: str | dict[str, Any] | None = None
    eos_token: str | dict[str, Any] | None = None
    pad_token: str | dict[str, Any] | None = None
    unk_token: str | dict[str, Any] | None = None
    chat_template: str | list[dict[str, str]] | dict[str, str] | None = None


@dataclass
class _Anything:
    pass


# Each small file that an export or transformers reads.
FILES: Mapping[str, type] = {
    "config.json": _Config,
    "generation_config.json": _Generation,
    "preprocessor_config.json": _Images,
    "processor_config.json": _Processor,
    "tokenizer_config.json": _TokenizerSettings,
    "special_tokens_map.json": _Anything,
    "added_tokens.json": _Anything,
    "chat_template.json": _Anything,
    "tokenizer.json": _Anything,
}


def check_fields(file: Path, content: dict[str, Any]) -> None:
    """Raise UserError where a field of one of ``FILES`` is of another type or out of bounds."""
    try:
        msgspec.convert(content, FILES[file.name])
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        field = path.rstrip("`").removeprefix(".") or "the whole"
        what = what.partition(", got ")[0].replace("`", "").replace(" | null", "")
        raise UserError(
            f"expected {field} of {file} to be {what.removeprefix('Expected ')}, found "
            f"{_shown(content, path)}; mend it there"
        ) from error


def _shown(content: Any, path: str) -> str:
    """The value at a path of msgspec's, which ends where it says "any of them"."""
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", path.partition("[...]")[0]):
        if isinstance(content, dict) and name in content:
            content = content[name]
        elif isinstance(content, list) and index:
            content = content[int(index)]
    return ascii(content)[:100]
