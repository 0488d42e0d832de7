"""The checkpoint's model without its weights, in the form in which it is traced."""

from collections.abc import Iterator
from contextlib import contextmanager
from sys import modules
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

__all__ = ["canonical_operators", "weightless_model"]


def weightless_model(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model on the meta device, so that a 7B decoder is traced in megabytes.

    Buffers that are no part of a checkpoint (rotary frequencies, position numbers) hold their real values:
    they become constants of the graph.
    """
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
    for part in model.modules():
        if not isinstance(part, PreTrainedModel):
            continue
        for module in part.modules():
            if not module._non_persistent_buffers_set:
                continue
            for name in module._non_persistent_buffers_set:
                buffer = module.get_buffer(name)
                module._buffers[name] = torch.empty_like(buffer, device="cpu")
            part._init_weights(module)
    return model


@contextmanager
def canonical_operators(model: nn.Module) -> Iterator[None]:
    """While tracing, RMS norms and rotary embeddings are single operators instead of their arithmetic.

    The exporter would otherwise write six nodes for a norm and nine for a rotation; single nodes are what
    runtimes have kernels for, and what a reader of the graph expects.
    """
    originals: list[tuple[Any, str, Any]] = []

    def replace(holder: Any, name: str, value: Any) -> None:
        originals.append((holder, name, getattr(holder, name)))
        setattr(holder, name, value)

    for module in model.modules():
        kind = type(module)
        if kind.__name__.endswith("RMSNorm") and kind.forward is not _rms_norm:
            replace(kind, "forward", _rms_norm)
        modeling = modules[kind.__module__]
        if getattr(modeling, "apply_rotary_pos_emb", _rotate) is not _rotate:
            replace(modeling, "apply_rotary_pos_emb", _rotate)
    try:
        yield
    finally:
        for holder, name, value in reversed(originals):
            setattr(holder, name, value)


def _rms_norm(self: Any, hidden_states: Tensor) -> Tensor:
    return nn.functional.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)


def _rotate(
    query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, Tensor]:
    """transformers repeats the angles for both halves of a head; the operator wants them once, [B, T, d/2]."""
    half = cos.shape[-1] // 2
    cos, sin = cos[..., :half], sin[..., :half]
    return torch.onnx.ops.rotary_embedding(query, cos, sin), torch.onnx.ops.rotary_embedding(key, cos, sin)
