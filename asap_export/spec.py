"""What a LLaVA checkpoint is, in plain numbers: all that graphs, engines and runtimes need to know of it."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["BLOCK_SIZES", "DEFAULT_CPU_PASSES", "CpuPass", "ModelSpec", "Quantization"]

BLOCK_SIZES = (32, 64, 128)  # of 4-bit weights

# By which the decoder gets its form for ONNX Runtime's CPU provider (graph/cpu).
CpuPass = Literal["fused-attention", "blockwise-soft-mask", "skipped-cut", "int8-activations"]
# Rounding activations changes answers a little, so it has to be asked for.
DEFAULT_CPU_PASSES: tuple[CpuPass, ...] = ("fused-attention", "blockwise-soft-mask", "skipped-cut")


@dataclass(frozen=True)
class ModelSpec:
    """Sizes and token ids of one checkpoint. Pixel sizes are (height, width).

    LLaVA-NeXT repeats the vision tower's tile to ``grid_pinpoints``. LLaVA-1.5 has none: an image is one tile,
    without newline tokens.
    """

    architecture: str  # transformers' class name
    text_model_type: str  # "llama", "mistral", "qwen2"
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    image_token_id: int
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    pad_token_id: int | None
    tile_size: int  # pixels, the vision tower's input is square
    patch_size: int  # pixels
    grid_pinpoints: tuple[tuple[int, int], ...]
    class_token: bool  # the tower's class token is a visual token too, the first of its tile
    max_visual_tokens: int  # of one image, newline tokens included
    dtype: str  # as stored: "fp32", "fp16" or "bf16"


@dataclass(frozen=True)
class Quantization:
    """Weights of linear layers as integers: symmetric, one scale for ``block_size`` inputs of each output."""

    bits: int = 4
    block_size: int = 64
