"""Weights that no graph reads: a few have no part in LLaVA's computation, and a checkpoint may lack them. Any
other one would be a fault.

Names are those of transformers' current model classes.
"""

import re
from collections.abc import Iterable, Mapping

from transformers import PreTrainedConfig

from asap_export.checkpoint.shards import TensorPlace

__all__ = ["NEVER_READ", "stays_behind", "unread_weights"]

# What stays behind in a checkpoint by design: pattern of its name, and why. A group is the number of a layer of
# the vision tower, of which only those above the last used features stay behind.
NEVER_READ = {
    r"\bvision_tower\.(?:\w+\.)*post_layernorm\.": "normalizes CLIP's pooled output, and LLaVA takes patches",
    r"\bvision_tower\.(?:\w+\.)*encoder\.layers\.(\d+)\.": "lies above the last layer of vision_feature_layer",
}


def unread_weights(
    tensors: Mapping[str, TensorPlace], read: Iterable[TensorPlace], config: PreTrainedConfig
) -> list[str]:
    """Names among a checkpoint's ``tensors`` that no graph reads though one should.

    ``read`` are the places that graphs read; tied parameters share one.
    """
    used = set(read)
    return [name for name, place in tensors.items() if place not in used and not stays_behind(name, config)]


def stays_behind(name: str, config: PreTrainedConfig) -> bool:
    """Whether a parameter has no part in LLaVA's computation."""
    layers_used = _layers_used(config)
    for pattern in NEVER_READ:
        if found := re.search(pattern, name):
            return all(int(layer) >= layers_used for layer in found.groups())
    return False


def _layers_used(config: PreTrainedConfig) -> int:
    """Layers of the vision tower up to the last used features; 0 features are those before the first layer."""
    layers: int = config.vision_config.num_hidden_layers
    chosen = config.vision_feature_layer
    indices: list[int] = list(chosen) if isinstance(chosen, list | tuple) else [chosen]
    return max(index if index >= 0 else layers + 1 + index for index in indices)
