"""Inputs of a bundle's graphs for Polygraphy: a prompt of one image and some text, random numbers, an empty cache.

    cd llava.bundle
    polygraphy run decoder.onnx --onnxrt --data-loader-script PATH/polygraphy_data.py:decoder

A function for each graph; sizes and types come from manifest.json in the folder where Polygraphy is started.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

Feed = dict[str, np.ndarray]

VISUAL, TEXT, KEPT = 64, 16, 20  # tokens; of the visual ones so many are kept
SIZES = {
    "batch": 1,
    "sequence": VISUAL + TEXT,
    "total_sequence": VISUAL + TEXT,
    "early_total_sequence": VISUAL + TEXT,
    "past_sequence": 0,
    "early_past_sequence": 0,
    "visual_tokens": VISUAL,
    "tiles": 1,
    "height": 200,
    "width": 300,
}
TYPES = {
    "fp32": np.float32,
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "int64": np.int64,
    "bool": np.bool_,
    "uint8": np.uint8,
}


def preprocess() -> Iterator[Feed]:
    yield feed("preprocess")


def vision_encoder() -> Iterator[Feed]:
    yield feed("vision_encoder")


def embed_tokens() -> Iterator[Feed]:
    yield feed("embed_tokens")


def decoder() -> Iterator[Feed]:
    yield feed("decoder")


def feed(graph: str) -> Feed:
    """An array for each input of a graph."""
    manifest = json.loads(Path("manifest.json").read_text(encoding="utf-8"))
    random = np.random.default_rng(0)
    inputs = manifest["graphs"][graph]["inputs"]
    return {tensor["name"]: values(tensor, manifest["model"], random) for tensor in inputs}


def values(tensor: dict[str, Any], model: dict[str, Any], random: np.random.Generator) -> np.ndarray:
    """What one input is fed; ids and masks mean something, everything else is random."""
    shape = [SIZES.get(size, size) for size in tensor["dims"]]
    is_visual = np.arange(VISUAL + TEXT) < VISUAL
    named: dict[str, Any] = {
        "attention_mask": 1,
        "early_attention_mask": 1,
        "position_ids": np.arange(VISUAL + TEXT),
        "visual_mask": is_visual,
        "kept_length": KEPT + TEXT,
        "input_ids": np.where(is_visual, model["image_token_id"], 1),
        "gather_index": np.arange(VISUAL),
    }
    kind = TYPES[tensor["dtype"]]
    if tensor["name"] in named:
        return np.broadcast_to(np.asarray(named[tensor["name"]], kind), shape).copy()
    if tensor["dtype"] == "uint8":
        return random.integers(0, 256, shape, np.uint8)
    return random.standard_normal(shape).astype(kind)
