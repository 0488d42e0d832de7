"""The PyTorch reference reproduces every golden case, step by step."""

import sys
from pathlib import Path

import golden_cases
import numpy as np
import pytest
import torch

from asap_export.pruning import operators
from asap_export.pruning.cut import drop_tokens, observe_attention

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from make_golden import main as make_golden


def test_there_are_golden_cases() -> None:
    assert golden_cases.FILES, f"no .npz file in {golden_cases.FOLDER}"


@pytest.mark.parametrize("path", golden_cases.FILES, ids=lambda path: path.stem)
def test_reference_reproduces_the_golden_case(path):
    assert_reproduced(golden_cases.load(path))


@pytest.mark.parametrize("score", ["last", "text", "received", "salience"])
def test_reference_reproduces_a_case_that_was_made_just_now(score, tmp_path, capsys):
    options = ["--layout", "3p,4t,20v,3t,15v,5t", "--keep", "14", "--threshold", "0.6", "--lambda-max", "0.9"]
    make_golden(["--case", "new", "--score", score, "--folder", str(tmp_path), *options])
    assert "35 visual tokens, 14 kept" in capsys.readouterr().out
    case = golden_cases.load(tmp_path / "new.npz")
    assert len(case.expected["absorbed"]) > 2
    assert_reproduced(case)


def assert_reproduced(case: golden_cases.GoldenCase) -> None:
    hidden, visual = case.batch("hidden"), case.batch("visual_mask")
    valid, kept_length = case.batch("attention_mask"), torch.tensor(case.kept_length)

    seen = observe_attention(case.config, case.batch("query"), case.batch("key"), visual, valid, case.scale)
    survivors = drop_tokens(case.config, seen, hidden, visual, valid, kept_length)

    topk = operators.topk(seen.score, visual, valid, kept_length)
    absorbed = torch.zeros_like(topk, dtype=torch.bool)
    if case.config.merge:
        threshold = case.config.threshold
        absorbed = operators.merge(hidden, topk, visual, seen.salience, seen.mass, threshold)[2]
    is_visual = case.inputs["visual_mask"]
    kept = topk[0].numpy()
    case.check(
        {
            "mass": seen.mass[0].numpy(),
            "salience": seen.salience[0].numpy(),
            "score": seen.score[0].numpy(),
            "topk": kept[is_visual[kept]],
            "absorbed": np.sort(topk[absorbed].numpy()),
            "index": survivors.kept_index[0].numpy(),
            "hidden": survivors.hidden[0].numpy(),
        }
    )
