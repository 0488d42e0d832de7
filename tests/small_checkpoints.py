"""Small random checkpoints of every supported architecture, language model and way to use the vision tower.

They are complete: several shards, the random checkpoint's tokenizer, a processor of the architecture's own class.
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from random_checkpoint import PINPOINTS, VOCABULARY, model_config, processor_files
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from asap_export.checkpoint.loading import TORCH_DTYPES

__all__ = [
    "ARCHITECTURES",
    "EVERY_MODEL",
    "LANGUAGE_MODELS",
    "NAMES",
    "VISIONS",
    "SmallModel",
    "old_name",
    "small_config",
    "small_model",
    "write_checkpoint",
]

POSITIONS = 4096
SHARD_SIZE = "250KB"
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,  # two that see every token, and one behind the cut
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": POSITIONS,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}
LANGUAGE_MODELS: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {"num_key_value_heads": 4}),
    "llama-with-biases": (LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "llama3-tied": (
        LlamaConfig,
        {"rope_parameters": LLAMA3_ROPE, "num_key_value_heads": 1, "tie_word_embeddings": True},
    ),
    "mistral-wide-heads": (MistralConfig, {"head_dim": 32, "sliding_window": None}),
    "mistral-with-window": (MistralConfig, {"sliding_window": POSITIONS}),
    "qwen2": (Qwen2Config, {"sliding_window": 64, "use_sliding_window": False}),
    "qwen2-tied": (Qwen2Config, {"num_key_value_heads": 1, "tie_word_embeddings": True}),
}
VISIONS: dict[str, dict[str, Any]] = {
    "penultimate": {"vision_feature_layer": -2},
    "first": {"vision_feature_layer": 1, "multimodal_projector_bias": False},
    "last": {"vision_feature_layer": -1},
    "several": {"vision_feature_layer": [0, -3, 2]},
    "class-token": {"vision_feature_layer": -2, "vision_feature_select_strategy": "full"},
    "several-class-tokens": {
        "vision_feature_layer": [1, -1],
        "vision_feature_select_strategy": "full",
        "multimodal_projector_bias": False,
    },
}
VISION_TOWER = CLIPVisionConfig(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=56,
    patch_size=7,
)
ARCHITECTURES = {"llava": LlavaConfig, "llava_next": LlavaNextConfig}


@dataclass(frozen=True)
class SmallModel:
    """A model by the names of its parts; see ``ARCHITECTURES``, ``LANGUAGE_MODELS`` and ``VISIONS``."""

    architecture: str = "llava_next"
    language: str = "llama"
    vision: str = "penultimate"

    @property
    def exists(self) -> bool:
        """LLaVA-NeXT with class tokens does not: transformers itself cannot run it."""
        return self.architecture == "llava" or "class-token" not in self.vision

    def __str__(self) -> str:
        return f"{self.architecture} {self.language} {self.vision}"


EVERY_MODEL = [
    model
    for parts in itertools.product(ARCHITECTURES, LANGUAGE_MODELS, VISIONS)
    if (model := SmallModel(*parts)).exists
]


def small_config(model: SmallModel) -> PreTrainedConfig:
    """The configuration of ``small_model``."""
    config_class, changes = LANGUAGE_MODELS[model.language]
    text = config_class(**{**SIZES, **changes})
    grid = {"image_grid_pinpoints": PINPOINTS} if model.architecture == "llava_next" else {}
    return ARCHITECTURES[model.architecture](
        text_config=text,
        vision_config=VISION_TOWER,
        image_token_index=model_config()["image_token_index"],
        tie_word_embeddings=text.tie_word_embeddings,
        **grid,
        **VISIONS[model.vision],
    )


def small_model(model: SmallModel) -> PreTrainedModel:
    """The model in float32 with lively random weights: no matrix, bias or norm is at its initial value."""
    torch.manual_seed(3)
    llava = AutoModelForImageTextToText.from_config(small_config(model))
    for name, parameter in llava.named_parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 1.5 * parameter[0].numel() ** -0.5)
        else:
            parameter.data.normal_(0.0 if name.endswith("bias") else 1.0, 0.1)
    return llava.eval()


def write_checkpoint(
    folder: Path, model: SmallModel | None = None, dtype: str = "fp32", names: str = "saved"
) -> Path:
    """The checkpoint in ``folder``, in several shards; see ``NAMES`` for the names of its tensors."""
    model = model or SmallModel()
    llava = small_model(model).to(TORCH_DTYPES[dtype])
    llava.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    if names != "saved":
        for file in folder.glob("model*"):
            file.unlink()
        weights = {NAMES[names](name): weight for name, weight in llava.state_dict().items()}
        save_torch_state_dict(weights, folder, max_shard_size=SHARD_SIZE)
    for name, content in (processor_files() | _processor(model)).items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def old_name(name: str) -> str:
    """The name that a parameter had before transformers 4.52, and has in most checkpoints on the hub."""
    for new, old in (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.vision_tower.", "vision_tower.vision_model."),
    ):
        if name.startswith(new):
            return old + name.removeprefix(new)
    return name.removeprefix("model.")


def middle_name(name: str) -> str:
    """The name that a parameter had from transformers 4.52 to 4.57: ours but for the vision tower's."""
    return name.replace("model.vision_tower.", "model.vision_tower.vision_model.")


# Of a parameter of the current class; "saved" are those that save_pretrained writes, a mixture.
NAMES: dict[str, Callable[[str], str]] = {
    "saved": str,
    "old": old_name,
    "middle": middle_name,
    "current": str,
}


def _processor(model: SmallModel) -> dict[str, str]:
    """The two of its files that say what the architecture and the vision tower ask for."""
    images = json.loads(processor_files()["preprocessor_config.json"])
    whole = json.loads(processor_files()["processor_config.json"])
    whole["vision_feature_select_strategy"] = VISIONS[model.vision].get(
        "vision_feature_select_strategy", "default"
    )
    if model.architecture == "llava":
        del images["image_grid_pinpoints"], images["do_pad"]
        images |= {"image_processor_type": "CLIPImageProcessor", "processor_class": "LlavaProcessor"}
        whole["processor_class"] = "LlavaProcessor"
    return {"preprocessor_config.json": json.dumps(images), "processor_config.json": json.dumps(whole)}
