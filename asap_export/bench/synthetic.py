"""A checkpoint of a public model's shape with random weights, whole or scaled down, written shard by shard.

For trying an export or measuring at real size without a download: sizes come from engines/presets, tokenizer and
chat template from the built-in demo. Only one shard is in memory at a time. The weights are scaled so that
activations stay in the range of fp16; the answers mean nothing.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForImageTextToText

from asap_export.bundle.presets import Preset
from asap_export.checkpoint.loading import TORCH_DTYPES
from asap_export.checkpoint.sources import DEMO
from asap_export.errors import UserError
from asap_export.progress import Progress, ProgressCallback, no_progress
from asap_export.pruning.flops import DecoderShape

__all__ = ["model_config", "scaled_shape", "scaled_vision", "write_checkpoint"]

TILE, PATCH = 336, 14
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
SHARD_BYTES = 1_000_000_000
# Of CLIP ViT-L/14 at 336 pixels, the tower of every public LLaVA-NeXT.
VISION: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": TILE,
    "patch_size": PATCH,
    "projection_dim": 768,
    "vocab_size": 32000,
}
FROM_DEMO = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def scaled_shape(shape: DecoderShape, scale: float, layers: int | None = None) -> DecoderShape:
    """``shape`` with its widths and its number of heads times ``scale``; depth, head size and vocabulary stay.

    Widths are multiples of 64, and as many query heads share a key head as before. Raises UserError for a scale
    outside (0, 1] or fewer than one layer.
    """
    if not 0 < scale <= 1:
        raise UserError(f"expected --scale in (0, 1], found {scale:g}; 1 is the model's own size")
    if layers is not None and layers < 1:
        raise UserError(f"expected --layers of at least 1, found {layers}; leave it out for all")
    kv_heads = max(1, round(shape.kv_heads * scale))
    return replace(
        shape,
        layers=layers or shape.layers,
        hidden_size=_width(shape.hidden_size, scale),
        intermediate_size=_width(shape.intermediate_size, scale),
        heads=kv_heads * shape.heads // shape.kv_heads,
        kv_heads=kv_heads,
    )


def scaled_vision(scale: float) -> dict[str, Any]:
    """The vision tower's configuration; its head size, depth and tile stay."""
    heads = max(1, round(VISION["num_attention_heads"] * scale))
    head_dim = VISION["hidden_size"] // VISION["num_attention_heads"]
    return VISION | {
        "hidden_size": heads * head_dim,
        "intermediate_size": 4 * heads * head_dim,
        "num_attention_heads": heads,
    }


def _width(size: int, scale: float) -> int:
    """A multiple of 64: no block of 4-bit weights, and no vector of a kernel, is left half full."""
    return size if scale == 1 else max(64, round(size * scale / 64) * 64)


def model_config(preset: Preset, layers: int | None, dtype: str, scale: float = 1.0) -> dict[str, Any]:
    """config.json in the words of transformers."""
    demo = json.loads((DEMO / "config.json").read_text(encoding="utf-8"))
    shape, ids = scaled_shape(preset.decoder, scale, layers), demo["text_config"]
    text = {
        "model_type": preset.text_model_type,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": preset.max_position_embeddings,
        "rope_theta": preset.rope_theta,
        "rms_norm_eps": preset.rms_norm_eps,
        "tie_word_embeddings": False,
        **{name: ids[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
    }
    if preset.text_model_type == "mistral":
        text["sliding_window"] = None
    anyres = not preset.name.startswith("llava-1.5")
    config = {
        "architectures": ["LlavaNextForConditionalGeneration" if anyres else "LlavaForConditionalGeneration"],
        "model_type": "llava_next" if anyres else "llava",
        "dtype": str(TORCH_DTYPES[dtype]).removeprefix("torch."),
        "image_token_index": demo["image_token_index"],
        "image_seq_length": (TILE // PATCH) ** 2,
        "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": False,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "text_config": text,
        "vision_config": scaled_vision(scale),
    }
    return config | ({"image_grid_pinpoints": PINPOINTS} if anyres else {})


def _processor_files(preset: Preset) -> dict[str, dict[str, Any]]:
    """The demo's processor for tiles of the real size; LLaVA-1.5 has its own class, and one tile."""
    images = json.loads((DEMO / "preprocessor_config.json").read_text(encoding="utf-8"))
    whole = json.loads((DEMO / "processor_config.json").read_text(encoding="utf-8")) | {"patch_size": PATCH}
    images |= {"size": {"shortest_edge": TILE}, "crop_size": {"height": TILE, "width": TILE}}
    if preset.name.startswith("llava-1.5"):
        for name in ("image_grid_pinpoints", "do_pad"):
            del images[name]
        images |= {"image_processor_type": "CLIPImageProcessor", "processor_class": "LlavaProcessor"}
        whole |= {"processor_class": "LlavaProcessor"}
    else:
        images["image_grid_pinpoints"] = PINPOINTS
    return {"preprocessor_config.json": images, "processor_config.json": whole}


def _random_weight(name: str, shape: torch.Size, dtype: str, noise: torch.Generator) -> torch.Tensor:
    """One parameter; matrices keep the size of what they multiply, biases and norms are near the identity."""
    value = torch.empty(shape, dtype=torch.float32)
    if "norm" in name or "layrnorm" in name:
        value.normal_(0.0 if name.endswith("bias") else 1.0, 0.05, generator=noise)
    elif name.endswith("bias") or len(shape) < 2:
        value.normal_(0.0, 0.05, generator=noise)
    elif "embed_tokens" in name or "position_embedding" in name:
        value.normal_(0.0, 0.5, generator=noise)
    else:
        value.normal_(0.0, shape[1:].numel() ** -0.5, generator=noise)
    return value.to(TORCH_DTYPES[dtype])


def _shards_of(shapes: dict[str, torch.Size], itemsize: int) -> list[list[str]]:
    """Parameter names in the model's order, cut where a shard would grow beyond its size."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        nbytes = shape.numel() * itemsize
        if shards[-1] and size + nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += nbytes
    return shards


def write_checkpoint(
    folder: Path,
    preset: Preset,
    dtype: str,
    *,
    scale: float = 1.0,
    layers: int | None = None,
    seed: int = 0,
    progress: ProgressCallback = no_progress,
) -> int:
    """All files of the checkpoint, in ``folder`` when they are complete; returns the bytes of its weights.

    ``scale`` shrinks decoder and vision tower in width, ``layers`` the decoder in depth; tiles and so visual
    tokens stay. Raises UserError for a scale or a number of layers that is none.
    """
    config = model_config(preset, layers, dtype, scale)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, content in {"config.json": config, **_processor_files(preset)}.items():
        (partial / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name in FROM_DEMO:
        shutil.copyfile(DEMO / name, partial / name)
    total = _write_weights(partial, config, dtype, seed, progress)
    partial.rename(folder)
    return total


def _write_weights(
    folder: Path, config: dict[str, Any], dtype: str, seed: int, progress: ProgressCallback
) -> int:
    """All shards and their index; returns the bytes of all weights."""
    with torch.device("meta"):
        parsed = AutoConfig.for_model(**config)
        model = AutoModelForImageTextToText.from_config(parsed)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    noise = torch.Generator().manual_seed(seed)
    shards = _shards_of(shapes, TORCH_DTYPES[dtype].itemsize)
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        progress(Progress("Write checkpoint", (number - 1) / len(shards), file))
        weights = {name: _random_weight(name, shapes[name], dtype, noise) for name in names}
        save_file(weights, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    total: int = sum(shape.numel() for shape in shapes.values()) * TORCH_DTYPES[dtype].itemsize
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return total
