"""Parts of a model that are traced as one ONNX operator each: norms, rotary embeddings, attention.

The exporter would otherwise write six nodes for a norm and nine for a rotation; single nodes are what runtimes
have kernels for, and what a reader of the graph expects. It would find the node of attention by itself, but only
after it looked into the arithmetic three times with symbolic sizes, which was a quarter of a trace's time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from sys import modules
from typing import Any

import torch
from onnxscript import opset23
from torch import Tensor, nn

from asap_export.model import attention

__all__ = ["canonical_operators", "canonical_translations"]


@contextmanager
def canonical_operators(model: nn.Module) -> Iterator[None]:
    """While tracing, norms, rotary embeddings and attention are single operators instead of their arithmetic."""
    originals: list[tuple[Any, str, Any]] = []

    def replace(holder: Any, name: str, value: Any) -> None:
        originals.append((holder, name, getattr(holder, name)))
        setattr(holder, name, value)

    replace(attention, "scaled_dot_product", _attention)
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


@torch.library.custom_op("asap_export::attention", mutates_args=())
def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    return attention.scaled_dot_product(query, key, value, mask, scale)


@_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    torch._check(mask.shape[-1] == key.shape[2])  # type: ignore[no-untyped-call]  # one length, by either name
    return torch.empty_like(query)


def canonical_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For ``torch.onnx.export(custom_translation_table=...)``: this module's operator and its node."""

    def scaled_dot_product(query: Any, key: Any, value: Any, mask: Any, scale: float) -> Any:
        return opset23.Attention(query, key, value, mask, scale=scale)[0]

    return {torch.ops.asap_export.attention.default: scaled_dot_product}
