"""Tiny checkpoints of every supported backbone, written as transformers writes them."""

from collections.abc import Callable

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
)

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
TEXT_CONFIGS: dict[str, Callable[..., PreTrainedConfig]] = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
}


def tiny_config(text_model: str = "llama", **changes: object) -> LlavaNextConfig:
    window = {"sliding_window": None} if text_model == "mistral" else {}
    text = TEXT_CONFIGS[text_model](**{**SIZES, **window, **changes.pop("text", {})})
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    settings = {"image_grid_pinpoints": [[28, 56], [56, 28]], "image_token_index": 3, **changes}
    return LlavaNextConfig(text_config=text, vision_config=vision, **settings)


def tiny_model(text_model: str = "llama", **changes: object) -> LlavaNextForConditionalGeneration:
    torch.manual_seed(0)
    return LlavaNextForConditionalGeneration(tiny_config(text_model, **changes)).half()
