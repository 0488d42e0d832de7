"""Part ``operators``: the method's four operators on the device against the same operators on the host.

The host computes in float32 on the very numbers that the device is given, rounded to its dtype. All of the cut is
float32 in every dtype, so only the order of additions differs, and where a result is stored in fewer bits, its
rounding. Every operator gets the host's results of those before it: a choice is compared on equal scores.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asap_export.pruning import operators
from asap_export.pruning.cut import Observation, criterion, observe_attention
from asap_export.pruning.scores import row_weight
from on_gpu.cuts import TINY, VICUNA_7B, CutCase, golden_cases, random_cases
from on_gpu.steps import Setting, Steps

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LIMIT = 1e-4  # of a tensor's largest value, for sums in float32
NEAR = 1e-5  # between a cosine and the threshold: such a choice may fall either way


class Compared(NamedTuple):
    """One result against the reference's: the error as a part of the largest value, or how many choices differ."""

    case: str
    name: str
    error: float
    limit: float
    margin: float | None = None  # of the closest choice, where choices differ

    @property
    def verdict(self) -> str:
        if self.error <= self.limit:
            return "equal" if self.error == 0 else "within"
        return "near tie" if self.margin is not None and self.margin < NEAR else "differs"


class Expected(NamedTuple):
    """The host's results for a case: kept [B, K], merged hidden states, what was absorbed."""

    seen: Observation
    kept: Tensor
    hidden: Tensor
    index: Tensor
    absorbed: Tensor


def measure(setting: Setting, steps: Steps) -> None:
    """All cases in each dtype."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    cases = [*golden_cases(), *random_cases(TINY if setting.rehearsal else VICUNA_7B)]
    for dtype in DTYPES:
        steps.run(dtype, lambda dtype=dtype: _summary(cases, setting, dtype))


def _summary(cases: list[CutCase], setting: Setting, dtype: str) -> dict[str, Any]:
    """The worst of every result over all cases, and all that is not as it should be."""
    device = torch.device(setting.device)
    found = [each for case in cases for each in compare_operators(case, device, DTYPES[dtype])]
    worst: dict[str, Compared] = {}
    for each in found:
        known = worst.get(each.name)
        if known is None or each.error / (each.limit or 1) > known.error / (known.limit or 1):
            worst[each.name] = each
    odd = [each for each in found if each.verdict in ("near tie", "differs")]
    differs = sum(each.verdict == "differs" for each in odd)
    return {
        "said": f"{len(found)} compared, {differs} differ, {len(odd) - differs} near ties",
        "cases": len(cases),
        "compared": len(found),
        "differs": differs,
        "near_ties": len(odd) - differs,
        "worst": {name: _entry(each) for name, each in worst.items()},
        "not_equal": [_entry(each) for each in odd],
    }


def _entry(compared: Compared) -> dict[str, Any]:
    return {**compared._asdict(), "verdict": compared.verdict}


def reference_of(case: CutCase, dtype: torch.dtype) -> Expected:
    """The whole cut on the host, computed once for a case rounded to ``dtype``."""
    known = case.name, dtype
    if known not in _EXPECTED:
        _EXPECTED[known] = _reference(case)
    return _EXPECTED[known]


_EXPECTED: dict[tuple[str, torch.dtype], Expected] = {}


def _reference(case: CutCase) -> Expected:
    config = case.config
    seen = observe_attention(config, case.query, case.key, case.visual, case.valid, case.scale)
    kept = operators.topk(seen.score, case.visual, case.new_valid, torch.tensor(case.kept_length))
    inputs = case.hidden, kept, case.visual, seen.salience, seen.mass
    if config.method == "asap" and config.merge:
        merged = operators.merge(*inputs, config.threshold)
    else:
        rows = torch.arange(len(kept))[:, None]
        merged = case.hidden[rows, kept], kept, torch.zeros_like(kept, dtype=torch.bool)
    return Expected(seen, kept, *merged)


def compare_operators(case: CutCase, device: torch.device, dtype: torch.dtype) -> Iterator[Compared]:
    """The four of ``pruning/operators.py`` on the device."""
    host, there = case.rounded(dtype), case.on(device, dtype)
    expected = reference_of(host, dtype)
    seen, config = expected.seen, case.config
    numbers = partial(_numbers, case)
    if config.weighs_mass:
        given = there.query, there.key, there.visual, there.valid, config.lambda_max, case.scale
        bias, mass, salience = operators.mask(*given)
        yield numbers("mask: mass", mass, seen.mass, only=host.visual)
        yield numbers("mask: salience", salience, seen.salience, only=host.visual)
        if config.bidirectional:
            yield numbers("mask: bias", bias.exp(), seen.bias.exp())
    if criterion(config) != "salience":
        weight = row_weight(criterion(config), host.visual, host.new_valid).to(device)
        score = operators.score(there.query, there.key, seen.bias.to(device), weight, case.scale)
        new = score[:, score.shape[1] - host.visual.shape[1] :]
        yield numbers("score", new, seen.score, only=host.visual)
    length = torch.tensor(case.kept_length)
    kept = operators.topk(seen.score.to(device), there.visual, there.new_valid, length)
    yield _choice(case, "topk", kept, expected.kept, None)
    if config.method == "asap" and config.merge:
        given = expected.kept.to(device), there.visual, seen.salience.to(device), seen.mass.to(device)
        merged, index, absorbed = operators.merge(there.hidden, *given, config.threshold)
        margin = _merge_margin(host, expected)
        yield _choice(case, "merge: absorbed", absorbed, expected.absorbed, margin)
        yield _choice(case, "merge: index", index, expected.index, margin)
        if torch.equal(index.cpu(), expected.index) and torch.equal(absorbed.cpu(), expected.absorbed):
            yield numbers("merge: hidden", merged, expected.hidden, rounding=dtype)


def _numbers(
    case: CutCase,
    name: str,
    found: Tensor,
    expected: Tensor,
    only: Tensor | None = None,
    rounding: torch.dtype | None = None,
) -> Compared:
    found = found.detach().float().cpu()
    if only is not None:
        found, expected = found[only], expected[only]
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    error = float((found - expected).abs().max()) / (largest or 1.0) if expected.numel() else 0.0
    error = error if error == error else float("inf")
    return Compared(case.name, name, error, LIMIT + (torch.finfo(rounding).eps if rounding else 0.0))


def _choice(case: CutCase, name: str, found: Tensor, expected: Tensor, margin: float | None) -> Compared:
    differing = int((found.cpu() != expected).sum())
    return Compared(case.name, name, float(differing), 0.0, margin if differing else None)


def _merge_margin(host: CutCase, expected: Expected) -> float:
    """Between the threshold and the cosine closest to it, of any two kept visual tokens of a row."""
    closest = torch.inf
    for row, kept in enumerate(expected.kept):
        unit = torch.nn.functional.normalize(host.hidden[row, kept[host.visual[row, kept]]], dim=-1)
        cosine = (unit @ unit.T).fill_diagonal_(-2.0)
        if len(unit) > 1:
            closest = min(closest, float((cosine - host.config.threshold).abs().min()))
    return closest
