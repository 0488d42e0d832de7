"""Write a checkpoint of a public model's exact shape with random weights, shard by shard.

    python tools/make_checkpoint.py --like llava-v1.6-vicuna-7b --output FOLDER [--dtype fp16] [--layers N]

For trying an export at real size without a download: sizes come from engines/presets, tokenizer and chat template
from the built-in demo. Only one shard is in memory at a time. The weights are scaled so that activations stay
in the range of fp16; the answers mean nothing.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForImageTextToText

from asap_export.bundle.presets import Preset, find_preset, presets
from asap_export.checkpoint.sources import DEMO

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TILE, PATCH = 336, 14
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
SHARD_BYTES = 1_000_000_000
# Of CLIP ViT-L/14 at 336 pixels, the tower of every public LLaVA-NeXT.
VISION = {
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


def model_config(preset: Preset, layers: int | None, dtype: str) -> dict[str, Any]:
    """config.json in the words of transformers."""
    demo = json.loads((DEMO / "config.json").read_text())
    shape, ids = preset.decoder, demo["text_config"]
    text = {
        "model_type": preset.text_model_type,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": layers or shape.layers,
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
        "dtype": str(DTYPES[dtype]).removeprefix("torch."),
        "image_token_index": demo["image_token_index"],
        "image_seq_length": (TILE // PATCH) ** 2,
        "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": False,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "text_config": text,
        "vision_config": VISION,
    }
    return config | ({"image_grid_pinpoints": PINPOINTS} if anyres else {})


def processor_files(preset: Preset) -> dict[str, dict[str, Any]]:
    """The demo's processor for tiles of the real size; LLaVA-1.5 has its own class, and one tile."""
    images = json.loads((DEMO / "preprocessor_config.json").read_text())
    whole = json.loads((DEMO / "processor_config.json").read_text()) | {"patch_size": PATCH}
    images |= {"size": {"shortest_edge": TILE}, "crop_size": {"height": TILE, "width": TILE}}
    if preset.name.startswith("llava-1.5"):
        for name in ("image_grid_pinpoints", "do_pad"):
            del images[name]
        images |= {"image_processor_type": "CLIPImageProcessor", "processor_class": "LlavaProcessor"}
        whole |= {"processor_class": "LlavaProcessor"}
    else:
        images["image_grid_pinpoints"] = PINPOINTS
    return {"preprocessor_config.json": images, "processor_config.json": whole}


def random_weight(name: str, shape: torch.Size, dtype: str, noise: torch.Generator) -> torch.Tensor:
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
    return value.to(DTYPES[dtype])


def shards_of(shapes: dict[str, torch.Size], itemsize: int) -> list[list[str]]:
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


def write_weights(folder: Path, config: dict[str, Any], dtype: str, seed: int) -> int:
    """All shards and their index; returns the bytes of all weights."""
    with torch.device("meta"):
        parsed = AutoConfig.for_model(**config)
        model = AutoModelForImageTextToText.from_config(parsed)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    noise = torch.Generator().manual_seed(seed)
    shards = shards_of(shapes, DTYPES[dtype].itemsize)
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        print(f"{file}: {len(names)} tensors", flush=True)
        save_file(
            {name: random_weight(name, shapes[name], dtype, noise) for name in names},
            folder / file,
            metadata={"format": "pt"},
        )
        places |= dict.fromkeys(names, file)
    total = sum(shape.numel() for shape in shapes.values()) * DTYPES[dtype].itemsize
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return total


def write_checkpoint(folder: Path, preset: Preset, layers: int | None, dtype: str, seed: int) -> None:
    """All files of the checkpoint, in ``folder`` when they are complete."""
    config = model_config(preset, layers, dtype)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, content in {"config.json": config, **processor_files(preset)}.items():
        (partial / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name in FROM_DEMO:
        shutil.copyfile(DEMO / name, partial / name)
    total = write_weights(partial, config, dtype, seed)
    partial.rename(folder)
    print(f"{folder}: {total / 1e9:.2f} GB of weights, {dtype}")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--like", required=True, metavar="NAME", help=", ".join(presets()))
    arguments.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    arguments.add_argument("--dtype", choices=DTYPES, default="fp16")
    arguments.add_argument("--layers", type=int, help="decoder layers, by default all")
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    preset = find_preset(given.like)
    if preset is None:
        arguments.error(f"expected --like to name one of {', '.join(presets())}, found {given.like}")
    if given.output.exists():
        arguments.error(f"expected a new folder, found {given.output}; remove it or choose another")
    write_checkpoint(given.output, preset, given.layers, given.dtype, given.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
