"""What a comparison says, and how far apart two computations of one thing may be."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Check", "Level", "Verdict", "compare", "equal", "tolerance", "worst"]

Verdict = Literal["PASS", "FAIL"]
Level = Literal["inputs", "weights", "operators", "graphs", "cut", "answers"]

# Largest error allowed in a tensor, as a part of the tensor's own largest magnitude, for a model of 8 layers.
# An element's error grows with the type's rounding (2^-24, 2^-11, 2^-8 of a value) and, because roundings are
# as often up as down, with the square root of the number of operations, so of the layers. The constants are
# four to eight times the largest error that two correct runtimes show on the demo checkpoint (fp32 1e-6, fp16
# 2e-3); a fault (another λ_max, a swapped head, a position off by one) is ten times larger still.
_AT_8_LAYERS = {"fp32": 1e-5, "fp16": 1e-2, "bf16": 8e-2}


# The float32 copy of a bfloat16 graph computes in float32, but the graph's scalar constants (the 1.702 of the
# vision tower's activation, say) keep the rounding of bfloat16, which PyTorch's scalars do not have.
_FLOAT32_COPY = 1e-3


def tolerance(dtype: str, layers: int, float32_copy: bool = False) -> float:
    """Largest error relative to a tensor's largest magnitude, for graphs of ``layers`` decoder layers."""
    at_8_layers = _FLOAT32_COPY if float32_copy else _AT_8_LAYERS[dtype]
    return float(at_8_layers * max(1.0, layers / 8) ** 0.5)


@dataclass(frozen=True)
class Check:
    """One comparison. Errors are relative to the expected tensor's largest magnitude; None where not numeric.

    ``case`` is the prompt, ``name`` what was compared; ``form`` is the decoder's file without its ending, where
    it is a decoder's. ``detail`` says in words what numbers alone do not. ``near_tie``: the bundle chose
    otherwise than PyTorch, and the choice was explained by rounding.
    """

    level: Level
    case: str
    name: str
    verdict: Verdict
    max_error: float | None = None
    mean_error: float | None = None
    cosine: float | None = None
    limit: float | None = None
    detail: str = ""
    form: str = ""
    near_tie: bool = False


def compare(
    level: Level,
    case: str,
    name: str,
    found: npt.NDArray[np.generic],
    expected: npt.NDArray[np.generic],
    limit: float,
    form: str = "",
    scale: float | None = None,
) -> Check:
    """PASS where shapes agree, everything is finite and the largest error stays within ``limit``, as a part of
    ``scale``, by default the expected tensor's largest magnitude."""
    if found.shape != expected.shape:
        shapes = f"shape {list(found.shape)}, expected {list(expected.shape)}"
        return Check(level, case, name, "FAIL", limit=limit, detail=shapes, form=form)
    ours, theirs = found.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    if not ours.size:
        return Check(level, case, name, "PASS", 0.0, 0.0, 1.0, limit, form=form)
    with np.errstate(invalid="ignore"):
        difference = np.abs(ours - theirs)
    finite = np.isfinite(theirs)
    if not finite.all():  # infinities of a mask are equal, and have no difference
        difference[ours == theirs] = 0.0
        ours, theirs = ours[finite], theirs[finite]
    scale = scale or np.abs(theirs).max(initial=0.0) or 1.0
    largest = float(difference.max() / scale)
    cosine = _cosine(ours, theirs)
    passed = bool(np.isfinite(largest) and largest <= limit)
    verdict: Verdict = "PASS" if passed else "FAIL"
    mean = float(difference.mean() / scale)
    return Check(level, case, name, verdict, largest, mean, cosine, limit, form=form)


def equal(
    level: Level,
    case: str,
    name: str,
    found: npt.NDArray[np.generic],
    expected: npt.NDArray[np.generic],
    form: str = "",
) -> Check:
    """PASS where every element is the same: for masks, places and lengths, and what is handed on untouched."""
    if found.shape != expected.shape:
        detail = f"shape {list(found.shape)}, expected {list(expected.shape)}"
        return Check(level, case, name, "FAIL", limit=0.0, detail=detail, form=form)
    others = int((found != expected).sum())
    if not others:
        return Check(level, case, name, "PASS", 0.0, limit=0.0, form=form)
    detail = f"{others} of {found.size} differ"
    return Check(level, case, name, "FAIL", others / found.size, limit=0.0, detail=detail, form=form)


def _cosine(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> float:
    # Not by ``@``: the threads of NumPy's BLAS go on spinning, and PyTorch's then wait for a core.
    product, square, other = (
        float(np.einsum("i,i", one, two)) for one, two in ((ours, theirs), (ours, ours), (theirs, theirs))
    )
    norms = (square * other) ** 0.5
    return product / norms if norms else float(np.array_equal(ours, theirs))


def worst(checks: Iterable[Check]) -> Verdict:
    """FAIL where one failed."""
    return "FAIL" if any(check.verdict == "FAIL" for check in checks) else "PASS"
