"""What a LLaVA checkpoint is, in plain numbers: all that graphs, engines and runtimes need to know of it."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from msgspec import Meta

__all__ = [
    "BLOCK_SIZES",
    "DEFAULT_CPU_PASSES",
    "LARGEST",
    "QUANTIZATIONS",
    "Count",
    "CpuPass",
    "Dtype",
    "Layers",
    "ModelSpec",
    "Name",
    "Number",
    "Quantization",
    "default_cpu_passes",
]

# Bounds of what a manifest may say (bundle/manifest.py); C++ has them in engines/cpp/src/manifest_fields.hpp.
LARGEST = 2**31 - 1  # the product of two stays in 64 bits
Number = Annotated[int, Meta(ge=0, le=LARGEST)]
Count = Annotated[int, Meta(ge=1, le=LARGEST)]
Token = Annotated[int, Meta(ge=-LARGEST, le=LARGEST)]  # some checkpoints write -1 for none
Layers = Annotated[int, Meta(ge=1, le=4096)]
Pixels = Annotated[int, Meta(ge=1, le=2**16)]  # of one side
Name = Annotated[str, Meta(min_length=1, max_length=1024)]

Dtype = Literal["fp32", "fp16", "bf16"]

BLOCK_SIZES = (32, 64, 128)  # of 4-bit weights

# By which the decoder gets its form for ONNX Runtime's CPU provider (graph/cpu).
CpuPass = Literal["fused-attention", "blockwise-soft-mask", "skipped-cut", "int8-activations"]
# Rounding activations changes answers a little, so it has to be asked for, as int8 does (default_cpu_passes).
DEFAULT_CPU_PASSES: tuple[CpuPass, ...] = ("fused-attention", "blockwise-soft-mask", "skipped-cut")


@dataclass(frozen=True)
class ModelSpec:
    """Sizes and token ids of one checkpoint. Pixel sizes are (height, width).

    LLaVA-NeXT repeats the vision tower's tile to ``grid_pinpoints``. LLaVA-1.5 has none: an image is one tile,
    without newline tokens.
    """

    architecture: Name  # transformers' class name
    text_model_type: Name  # "llama", "mistral", "qwen2"
    hidden_size: Count
    intermediate_size: Count
    layers: Layers
    heads: Count
    kv_heads: Count
    head_dim: Count
    vocab_size: Count
    max_position_embeddings: Count
    image_token_id: Number
    eos_token_ids: tuple[Number, ...]
    bos_token_id: Token | None
    pad_token_id: Token | None
    tile_size: Pixels  # pixels, the vision tower's input is square
    patch_size: Pixels  # pixels
    grid_pinpoints: Annotated[tuple[tuple[Pixels, Pixels], ...], Meta(max_length=256)]
    class_token: bool  # the tower's class token is a visual token too, the first of its tile
    max_visual_tokens: Count  # of one image, newline tokens included
    dtype: Dtype  # as stored in the checkpoint


@dataclass(frozen=True)
class Quantization:
    """Weights of linear layers as integers: symmetric, one scale for ``block_size`` inputs of each output.

    With 8 bits all inputs of an output share one, and there is no block size.
    """

    bits: Literal[4, 8] = 4
    block_size: Literal[32, 64, 128] | None = 64  # None with 8 bits

    @property
    def name(self) -> str:
        """What the command line calls it: "int4", "int8"."""
        return f"int{self.bits}"

    @property
    def scales(self) -> str:
        """How many weights share a scale, in words."""
        return f"blocks of {self.block_size}" if self.block_size else "one scale for each output"


QUANTIZATIONS = {"int4": Quantization(), "int8": Quantization(8, None)}  # by name, as by default


def default_cpu_passes(quantization: Quantization | None) -> tuple[CpuPass, ...]:
    """The passes that nobody has to ask for. With 8 bits these are all: such weights are slower than float32 ones
    beside activations that are not rounded."""
    every: tuple[CpuPass, ...] = get_args(CpuPass)
    return every if quantization is not None and quantization.bits == 8 else DEFAULT_CPU_PASSES
