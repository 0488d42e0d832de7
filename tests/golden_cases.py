"""The golden cases: inputs and expected outputs of one cut, which every form of the method must reproduce.

``ASAP_GOLDEN_DIR`` names another folder of cases.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asap_export.pruning.config import PruningConfig

FOLDER = Path(os.environ.get("ASAP_GOLDEN_DIR") or Path(__file__).parent / "golden")
FILES = sorted(FOLDER.glob("*.npz"))
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@dataclass(frozen=True)
class GoldenCase:
    """One case: no batch dimension; positions are those of the whole sequence."""

    config: PruningConfig
    keep: int
    inputs: dict[
        str, np.ndarray
    ]  # query [H,S,d], key [Hkv,S,d], hidden [S,D], visual_mask [S], attention_mask [S]
    expected: dict[str, np.ndarray]  # mass, salience, score [S], topk, absorbed, index, hidden

    @property
    def kept_length(self) -> int:
        text = self.inputs["attention_mask"] & ~self.inputs["visual_mask"]
        return int(text.sum()) + min(self.keep, int(self.inputs["visual_mask"].sum()))

    @property
    def scale(self) -> float:
        return float(self.inputs["query"].shape[-1] ** -0.5)

    def batch(self, name: str) -> torch.Tensor:
        """An input with a batch dimension of one."""
        return torch.from_numpy(self.inputs[name])[None]

    def check(self, found: dict[str, np.ndarray]) -> None:
        """Indices exactly, floats to 1e-5, visual positions only where nothing else is defined."""
        visual = self.inputs["visual_mask"]
        for name in ("mass", "salience", "score"):
            np.testing.assert_allclose(
                found[name][visual], self.expected[name][visual], **TOLERANCE, err_msg=name
            )
        for name in ("topk", "absorbed", "index"):
            np.testing.assert_array_equal(found[name], self.expected[name], err_msg=name)
        np.testing.assert_allclose(found["hidden"], self.expected["hidden"], **TOLERANCE, err_msg="hidden")


def load(path: Path) -> GoldenCase:
    with np.load(path) as archive:
        arrays: dict[str, Any] = dict(archive)
    config = json.loads(str(arrays.pop("config")))
    keep = config.pop("keep")
    return GoldenCase(
        PruningConfig(**config),
        keep,
        {name[3:]: value for name, value in arrays.items() if name.startswith("in_")},
        {name[4:]: value for name, value in arrays.items() if name.startswith("out_")},
    )
