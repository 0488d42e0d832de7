"""Whether a comparison fits into memory, asked before it starts.

PyTorch and ONNX Runtime are never open together. Both hold weights as float32: the reference computes in it, and
ONNX Runtime's CPU provider widens fp16 when it opens a graph.
"""

import math
import re

from asap_export.bundle import Manifest
from asap_export.checkpoint.checkpoint import Checkpoint
from asap_export.errors import UserError
from asap_export.memory import available_memory, gigabytes

__all__ = ["attention_memory", "check_memory", "memory_needed", "weight_memory"]

_FLOAT32 = 4  # bytes
_LAYER = re.compile(r"language_model\.layers\.(\d+)\.")
_TURNS = {"all": 13, "few": 3}  # recorded, of all cases
_FORMS = 2  # of the decoder, each with its cut laid open: six tensors as wide as the model, two masks
_TEXT = 64  # tokens of a prompt, about


def check_memory(checkpoint: Checkpoint, manifest: Manifest, layers: int | None) -> None:
    """Raise UserError where there is too little memory to compare all decoder layers, or the first ``layers``."""
    needed, available = memory_needed(checkpoint, manifest, layers), available_memory()
    if needed <= available:
        return
    total, pruning = manifest.model.layers, manifest.pruning
    what = f"all {total} layers" if layers is None else f"{layers} layers"
    fewer = min(total, pruning.prune_after + 2 if pruning.prunes else 2)
    enough = memory_needed(checkpoint, manifest, fewer)
    if (layers is None or fewer < layers) and enough <= available:
        advice = f"use --layers {fewer}, which takes about {gigabytes(enough)}"
    else:
        advice = "free some, or verify on another machine"
    raise UserError(
        f"expected about {gigabytes(needed)} of free memory to compare {what} with PyTorch in float32, found "
        f"{gigabytes(available)}; {advice}"
    )


def memory_needed(checkpoint: Checkpoint, manifest: Manifest, layers: int | None) -> int:
    """Bytes, about: weights, what one layer computes with at the longest prompt, and what is recorded."""
    model = manifest.model
    compared = model.layers if layers is None else layers
    kept = manifest.budget.keep_for(model.max_visual_tokens, model.layers, manifest.pruning.prune_after)
    cache = 2 * model.kv_heads * model.head_dim * compared * (kept + _TEXT)
    tokens = model.max_visual_tokens + _TEXT
    cut = tokens * (6 * model.hidden_size + 2 * tokens) if manifest.pruning.prunes else 0
    recorded = _FLOAT32 * _FORMS * _TURNS["all" if layers is None else "few"] * (cache + cut)
    return (
        weight_memory(checkpoint, compared)
        + attention_memory(model.heads, model.max_visual_tokens)
        + recorded
    )


def weight_memory(checkpoint: Checkpoint, layers: int) -> int:
    """Bytes in float32 of the decoder's first ``layers`` layers and of all that is in no layer."""
    shapes = {
        (place.file, place.offset): place.shape  # tied parameters share a place
        for name, place in checkpoint.tensors.items()
        if (layer := _LAYER.search(name)) is None or int(layer[1]) < layers
    }
    return _FLOAT32 * sum(math.prod(shape) for shape in shapes.values())


def attention_memory(heads: int, visual_tokens: int) -> int:
    """Bytes, about, of one layer's logits and their softmax, and of what allocators hold back of them."""
    return 3 * _FLOAT32 * heads * (visual_tokens + _TEXT) ** 2
