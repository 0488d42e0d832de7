"""What quantization costs, apart from what the export gets wrong.

The reference that a quantized bundle is compared with has the bundle's own dequantized weights, so its distance
from the graphs is the export's error alone. Here that reference is compared with the checkpoint's weights.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asap_export.bundle import Bundle
from asap_export.graph.codes import dequantized_weights
from asap_export.model.decoder import Cut
from asap_export.model.reference import PromptBatch, Reference
from asap_export.parity.recording import Array, to_array
from asap_export.parity.verdict import Check, Verdict
from asap_export.spec import Quantization

__all__ = ["Glance", "QuantizationError", "Quantized", "glance", "quantize_in_place", "quantized_file"]

# A 4-bit code's step is an eighth of its block's largest magnitude, which is the code -8; a value of the other
# sign can lie a whole step beyond the largest code. An 8-bit code is never further than half a step away, half of
# what is allowed. The scale is rounded to the bundle's dtype.
_SCALE_ROUNDING = {"fp32": 2.0**-23, "fp16": 2.0**-10, "bf16": 2.0**-7}


@dataclass(frozen=True)
class QuantizationError:
    """Dequantized weights against the checkpoint's, both in PyTorch; an information, not a verdict.

    Errors are norms of differences as parts of the original's norm. ``hidden`` are the hidden states before the
    cut and ``logits`` those of the first new token, the mean over cases; ``kept`` is the part of the kept visual
    tokens that are the same ones and ``tokens`` the part of greedy tokens up to the first difference.
    """

    bits: int
    block_size: int | None  # None where all inputs of an output share a scale
    weights: int  # compared
    weight_mean: float
    weight_worst: float
    worst_weight: str
    logits: float
    hidden: float | None  # None where nothing is cut
    kept: float | None
    tokens: float


@dataclass(frozen=True)
class Glance:
    """What is remembered of a case: logits [B, V] of its first prefill; hidden [tokens, D] and kept, a mask
    [B, T] of visual tokens, where there was a cut; the answer's tokens [B, n]."""

    logits: Tensor
    hidden: Tensor | None
    kept: Array | None
    tokens: Tensor


@dataclass(frozen=True)
class Quantized:
    """Relative errors of weights by parameter name, the checks of their values, and what they cost a model."""

    errors: dict[str, float] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    error: QuantizationError | None = None

    def compared(
        self, quantization: Quantization, before: Sequence[Glance], after: Sequence[Glance]
    ) -> "Quantized":
        """With ``error``; ``before`` and ``after`` are the same cases with the checkpoint's and with the
        dequantized weights."""
        if not self.errors:  # no layer's inputs are a multiple of the block
            return self
        pairs = list(zip(before, after, strict=True))
        worst = max(self.errors, key=lambda name: self.errors[name])
        error = QuantizationError(
            quantization.bits,
            quantization.block_size,
            len(self.errors),
            fmean(self.errors.values()),
            self.errors[worst],
            worst,
            fmean(_relative(a.logits, b.logits) for a, b in pairs),
            _mean(_relative, ((a.hidden, b.hidden) for a, b in pairs)),
            _mean(_overlap, ((a.kept, b.kept) for a, b in pairs)),
            fmean(_agreement(a.tokens, b.tokens) for a, b in pairs),
        )
        return replace(self, error=error)


def quantized_file(bundle: Bundle) -> Path:
    """Where a quantized bundle keeps codes and scales."""
    assert bundle.manifest.quantization is not None
    return bundle.path / "weights" / f"decoder.{bundle.manifest.quantization.name}.safetensors"


def quantize_in_place(model: nn.Module, file: Path, quantization: Quantization, dtype: str) -> Quantized:
    """Put dequantized weights into a float32 model, one at a time.

    Every value must lie within a step of its code; one that does not is a FAIL: the file is no rounding of this
    checkpoint.
    """
    parameters = dict(model.named_parameters())
    errors: dict[str, float] = {}
    checks: list[Check] = []
    for name, values in dequantized_weights(file, parameters):
        weight = parameters[name].data
        found = torch.from_numpy(values)
        errors[name] = _relative(weight, found)
        checks.append(_check_steps(name, weight, found, quantization, dtype))
        weight.copy_(found)
    return Quantized(errors, tuple(checks))


def glance(
    reference: Reference, prompt: PromptBatch, keep: int, max_new_tokens: int, eos_token_ids: tuple[int, ...]
) -> Glance:
    """What ``Quantized.compared`` needs of a prompt."""
    cuts: list[Cut] = []
    reference.decoder.on_cut = cuts.append
    output, context = reference.prefill(prompt, keep)
    reference.decoder.on_cut = None
    hidden = kept = None
    if cuts and bool(cuts[0].visual_mask.any()):
        hidden = cuts[0].hidden[cuts[0].new_mask]
        mask = np.zeros(cuts[0].visual_mask.shape, bool)
        np.put_along_axis(mask, to_array(output.kept_index), True, axis=1)
        kept = mask & to_array(cuts[0].visual_mask)
    image_token = (reference.config.image_token_id,)  # the runtime never writes one
    answer = reference.continued(
        output.logits, context, max_new_tokens, eos_token_ids=eos_token_ids, suppress_tokens=image_token
    )
    return Glance(output.logits[:, 0], hidden, kept, answer.tokens)


def _check_steps(name: str, weight: Tensor, found: Tensor, quantization: Quantization, dtype: str) -> Check:
    """Largest distance of a value from what its code stands for, as a part of its block's largest magnitude."""
    blocks = weight.reshape(weight.shape[0], -1, quantization.block_size or weight.shape[1])
    largest = blocks.abs().amax(dim=-1).clamp_min(torch.finfo(torch.float16).tiny)
    apart = (blocks - found.reshape(blocks.shape)).abs().amax(dim=-1) / largest
    limit = 2.0 ** (1 - quantization.bits) + _SCALE_ROUNDING[dtype]
    error, mean = float(apart.max()), float(apart.mean())
    verdict: Verdict = "PASS" if error <= limit else "FAIL"  # not a number fails
    return Check("weights", name, "quantized weights", verdict, error, mean, limit=limit)


def _relative(original: Tensor, other: Tensor) -> float:
    return float((original - other).norm() / original.norm().clamp_min(torch.finfo(torch.float32).tiny))


def _overlap(original: Array, other: Array) -> float:
    return float((original & other).sum() / max(1, original.sum()))


def _agreement(original: Tensor, other: Tensor) -> float:
    length = min(original.shape[1], other.shape[1])
    same = (original[:, :length] == other[:, :length]).long().cumprod(dim=1)
    return float(same.sum() / original.numel())


def _mean(measure: Callable[[Any, Any], float], pairs: Iterable[tuple[Any, Any]]) -> float | None:
    known = [measure(a, b) for a, b in pairs if a is not None and b is not None]
    return fmean(known) if known else None
