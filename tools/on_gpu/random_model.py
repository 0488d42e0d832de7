"""A LLaVA model of any shape with random weights, made where it will run, and a prompt for it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, CLIPVisionConfig, LlamaConfig, LlavaNextConfig

from on_gpu.setting import Setting

KINDS = 240  # of visual tokens: images repeat themselves, and merging lives on it
NOISE = 0.3  # between tokens of a kind, of their own size: a cosine of about 0.9


class PromptTensors(NamedTuple):
    """embeds: [1, T, D]; visual_mask: [1, T] bool."""

    embeds: Tensor
    visual_mask: Tensor


def random_llava(setting: Setting) -> Any:
    """The language model at full size behind a vision tower of no size; weights as tools/make_checkpoint.py's are
    scaled, so that activations keep their size. Nothing passes through the host's memory."""
    shape = setting.shape
    text = LlamaConfig(
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab_size,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    tower = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        projection_dim=32,
    )
    pinpoints = [[28, 56], [56, 28], [56, 56]]
    config = LlavaNextConfig(
        text_config=text,
        vision_config=tower,
        image_grid_pinpoints=pinpoints,
        image_token_index=shape.vocab_size - 1,
        tie_word_embeddings=False,
    )
    with torch.device(setting.device):
        llava = AutoModelForImageTextToText.from_config(config, dtype=setting.dtype).eval()
    noise = torch.Generator(setting.device).manual_seed(0)
    for name, parameter in llava.named_parameters():
        parameter.requires_grad_(False)
        parameter.data = _random(name, parameter, setting, noise)
    return llava


def _random(name: str, parameter: Tensor, setting: Setting, noise: torch.Generator) -> Tensor:
    mean, spread = 0.0, 0.05
    if "norm" in name and not name.endswith("bias"):
        mean = 1.0
    elif "embed_tokens" in name:
        spread = 0.5
    elif parameter.dim() > 1:
        spread = parameter[0].numel() ** -0.5
    value = torch.empty(parameter.shape, dtype=setting.dtype, device=setting.device)
    return value.normal_(mean, spread, generator=noise)


def random_prompt(setting: Setting) -> PromptTensors:
    """Random embeddings, of the size that the model's own have; visual ones come in ``KINDS``."""
    noise = torch.Generator(setting.device).manual_seed(1)
    width = setting.shape.hidden_size

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=noise, device=setting.device)

    kind = torch.randint(0, KINDS, (setting.visual,), generator=noise, device=setting.device)
    visual = normal(KINDS, width)[kind] + NOISE * normal(setting.visual, width)
    text = normal(setting.text, width)
    embeds = 0.5 * torch.cat([text[: setting.before], visual, text[setting.before :]])[None]
    mask = torch.zeros(1, setting.tokens, dtype=torch.bool, device=setting.device)
    mask[:, setting.before : setting.before + setting.visual] = True
    return PromptTensors(embeds.to(setting.dtype), mask)
