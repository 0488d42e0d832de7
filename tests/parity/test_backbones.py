"""Every backbone and every way to prune is exported, run and verified.

``make test`` runs two, ``make test-long`` few cases, in which those parts meet that can influence one another, and
``make test-backbones`` every language model in both architectures and every dtype, pruned and dense.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from small_checkpoints import ARCHITECTURES, LANGUAGE_MODELS, NAMES, VISIONS, SmallModel, write_checkpoint

import asap_export
from asap_export.exporter import ExportRequest, export
from asap_export.parity import verify
from asap_export.pruning.config import Budget, PruningConfig

IMAGE = Path(__file__).parents[2] / "examples" / "images" / "tower.png"
DTYPES = ("fp32", "fp16", "bf16")
PRUNINGS = (PruningConfig(), PruningConfig(method="none"))


@dataclass(frozen=True)
class Backbone:
    """A checkpoint and how it is exported; ``names`` are those of its tensors."""

    model: SmallModel
    dtype: str
    names: str
    pruning: PruningConfig

    def __str__(self) -> str:
        changed = [
            f"{name} {value}"
            for name, value in asdict(self.pruning).items()
            if value != getattr(PruningConfig(), name)
        ]
        return ", ".join([str(self.model), self.dtype, f"{self.names} names", *changed])

    def meetings(self) -> set[tuple[object, ...]]:
        """Parts that meet in a graph or in the naming of weights. Of the others it is enough to occur."""
        architecture, prunes = self.model.architecture, self.pruning.prunes
        return {
            (self.model.language, prunes) if prunes else (),
            (architecture, self.model.vision),
            (architecture, self.names),
            (architecture, self.dtype),
            (self.dtype, prunes),
        }


VARIANTS = [
    Backbone(SmallModel("llava_next", "mistral-wide-heads"), "fp32", "old", PruningConfig(prune_after=1)),
    Backbone(SmallModel("llava_next", "qwen2", "several"), "fp32", "saved", PruningConfig(method="fastv")),
    Backbone(
        SmallModel("llava", "llama3-tied", "class-token"),
        "fp32",
        "current",
        PruningConfig(score="salience", merge=False),
    ),
    Backbone(
        SmallModel("llava", "qwen2-tied", "several-class-tokens"),
        "fp32",
        "old",
        PruningConfig(score="text", lambda_max=1.0, threshold=0.6),
    ),
    Backbone(
        SmallModel("llava_next", "mistral-with-window", "first"),
        "fp32",
        "middle",
        PruningConfig(score="last", bidirectional=False, trim_early_kv=False),
    ),
]


def _product() -> list[Backbone]:
    """Every architecture with every language model, in every dtype, pruned and dense.

    Ways to use the vision tower and names take turns, so that each occurs with each architecture and language
    model: what they change is in other graphs than what dtype and method change of a language model.
    """
    cases = []
    for architecture in ARCHITECTURES:
        visions = [vision for vision in VISIONS if SmallModel(architecture, vision=vision).exists]
        for (place, language), (turn, how) in itertools.product(
            enumerate(LANGUAGE_MODELS), enumerate(itertools.product(DTYPES, PRUNINGS))
        ):
            vision = visions[(place + turn) % len(visions)]
            names = list(NAMES)[(place + turn + turn // len(NAMES)) % len(NAMES)]
            cases.append(Backbone(SmallModel(architecture, language, vision), how[0], names, how[1]))
    return cases


def _covering(cases: Sequence[Backbone], begun: Sequence[Backbone]) -> list[Backbone]:
    """``begun`` and few of the cases, with all meetings: always the next one that brings the most new ones."""
    chosen = list(begun)
    missing = {pair for case in cases for pair in case.meetings()}
    while missing := missing - {pair for case in chosen for pair in case.meetings()}:
        chosen.append(max(cases, key=lambda case: len(case.meetings() & missing)))
    return chosen


PRODUCT = _product()


def prove(case: Backbone, folder: Path) -> None:
    """Export, answer, verify."""
    checkpoint = write_checkpoint(folder / "checkpoint", case.model, case.dtype, case.names)
    assert len(list(checkpoint.glob("model-*.safetensors"))) > 1
    budget = Budget(keep=20) if case.pruning.prunes else None
    request = ExportRequest(
        model=str(checkpoint),
        output=folder / "bundle",
        dtype=case.dtype,
        pruning=case.pruning,
        budget=budget,
    )
    bundle = export(request).bundle

    report = verify(bundle.path, provider="cpu", images=(IMAGE,), max_new_tokens=4)
    assert report.verdict == "PASS", [check for check in report.checks if check.verdict != "PASS"][:5]
    if case.dtype == "fp32":  # no choice of these models hangs on so little
        assert report.near_ties == 0

    if case.dtype != "bf16":  # which ONNX Runtime's CPU provider cannot run
        answer = asap_export.load(bundle.path, "cpu").generate([IMAGE] * 2, "What differs?", max_new_tokens=3)
        kept = 20 if case.pruning.prunes else answer.visual_tokens
        assert answer.token_ids and answer.kept_visual_tokens == kept


def _in_turn() -> list[Any]:
    """The first LLaVA-NeXT and the first LLaVA-1.5 always."""
    cases = _covering(PRODUCT, VARIANTS)
    first = {case.model.architecture: case for case in reversed(cases)}.values()
    return [case if case in first else pytest.param(case, marks=pytest.mark.long) for case in cases]


@pytest.mark.parametrize("case", _in_turn(), ids=str)
def test_the_bundle_agrees_with_pytorch(case, tmp_path):
    prove(case, tmp_path)


@pytest.mark.backbones
@pytest.mark.parametrize("case", PRODUCT, ids=str)
def test_every_backbone(case, tmp_path):
    prove(case, tmp_path)
