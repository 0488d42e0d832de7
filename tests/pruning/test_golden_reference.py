"""The PyTorch reference reproduces every golden case, step by step."""

import golden_cases
import numpy as np
import pytest
import torch

from asap_export.pruning import operators
from asap_export.pruning.cut import drop_tokens, observe_attention


def test_there_are_golden_cases() -> None:
    assert golden_cases.FILES, f"no .npz file in {golden_cases.FOLDER}"


@pytest.mark.parametrize("path", golden_cases.FILES, ids=lambda path: path.stem)
def test_reference_reproduces_the_golden_case(path):
    case = golden_cases.load(path)
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
