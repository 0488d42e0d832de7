import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap_export.pruning.config import Budget, PruningConfig
from asap_export.pruning.flops import (
    DecoderShape,
    kv_cache_bytes,
    layer_average,
    paper_flops,
    whole_sequence_flops,
)

VICUNA_7B = DecoderShape(
    layers=32,
    hidden_size=4096,
    intermediate_size=11008,
    heads=32,
    kv_heads=32,
    head_dim=128,
    vocab_size=32064,
)
ROWS = json.loads((Path(__file__).parent / "flops_reference.json").read_text())["rows"]

counts = st.integers(0, 5000)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['model']}-{row['keep']}")
def test_the_papers_numbers_come_out_to_the_printed_digit(row: dict[str, Any]) -> None:
    shape = replace(VICUNA_7B, layers=row["layers"], hidden_size=row["d"], intermediate_size=row["m"])
    keep = row["v"] if row["keep"] is None else row["keep"]
    assert round(paper_flops(shape, row["v"], keep, row["prune_after"]) / 1e12, 3) == row["flops_T"]


@pytest.mark.parametrize(
    ("nominal", "visual", "keep", "average"),
    [
        (960, 2880, 825, 953.4375),
        (640, 2880, 478, 628.125),
        (192, 576, 167, 192.5625),
        (128, 576, 98, 127.875),
    ],
)
def test_the_papers_nominal_budgets_are_layer_averages_within_two_percent(
    nominal: int, visual: int, keep: int, average: float
) -> None:
    assert layer_average(visual, keep, 32, 2) == average == pytest.approx(nominal, rel=0.02)


@given(visual=st.integers(1, 5000), keep=st.integers(1, 5000), prune_after=st.integers(1, 8))
def test_a_budget_given_as_layer_average_is_the_same_keep(visual: int, keep: int, prune_after: int) -> None:
    keep = min(keep, visual)
    average = layer_average(visual, keep, 32, prune_after)
    assert Budget(layer_average=average).keep_for(visual, 32, prune_after) == keep


@given(visual=counts, text=st.integers(0, 500), keep=counts, prune_after=st.integers(1, 31))
def test_without_text_head_and_grouping_both_accountings_agree(
    visual: int, text: int, keep: int, prune_after: int
) -> None:
    shape = replace(VICUNA_7B, vocab_size=0)
    assert whole_sequence_flops(shape, visual, 0, keep, prune_after) == paper_flops(
        shape, visual, keep, prune_after
    )
    assert whole_sequence_flops(shape, visual, text, keep, prune_after) == paper_flops(
        shape, visual + text, keep + text, prune_after
    )


def test_whole_sequence_of_a_grouped_model_by_hand() -> None:
    """One layer of hidden 8, two query heads and one key head of 4, FFN 16, vocabulary 10, three tokens."""
    shape = DecoderShape(1, 8, 16, heads=2, kv_heads=1, head_dim=4, vocab_size=10)
    projections = 3 * (8 * 8 + 8 * 4 + 8 * 4 + 8 * 8)
    attention = 3 * 3 * 8 + 3 * 3 * 8
    feed_forward = 3 * 3 * 8 * 16
    assert whole_sequence_flops(shape, 2, 1, 2, 1) == projections + attention + feed_forward + 8 * 10


def test_kv_bytes_with_and_without_trimming() -> None:
    """LLaVA-1.5-7B in fp16 holds half a MiB per token."""
    mebibyte = 2**20
    trimmed, full = PruningConfig(), PruningConfig(trim_early_kv=False)
    assert kv_cache_bytes(VICUNA_7B, 576, 64, 576, "fp16", trimmed) == 320 * mebibyte
    assert kv_cache_bytes(VICUNA_7B, 576, 64, 96, "fp16", trimmed) == 80 * mebibyte
    assert kv_cache_bytes(VICUNA_7B, 576, 64, 96, "fp16", full) == 80 * mebibyte + 2 * 480 * mebibyte // 64
    assert kv_cache_bytes(VICUNA_7B, 576, 64, 96, "fp32", trimmed) == 160 * mebibyte


def test_counting_needs_no_torch() -> None:
    code = "import asap_export.pruning.flops, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
