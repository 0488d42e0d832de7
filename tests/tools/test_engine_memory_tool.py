"""The table of memory for presets: its sizes are those of the checkpoints that they describe."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

import engine_memory

from asap_export.bundle.presets import presets


def test_the_weights_of_vicuna_7b_are_those_of_its_checkpoint() -> None:
    """14.1 GB in fp16, as docs/measurements.md has it."""
    sizes = engine_memory.sizes(presets()["llava-v1.6-vicuna-7b"], engine_memory.FP16)
    assert sum(sizes.values()) / 1e9 == pytest.approx(14.13, rel=0.005)


def test_every_preset_has_a_row_and_the_page_has_them_all() -> None:
    page = (Path(__file__).parents[2] / "engines" / "README.md").read_text(encoding="utf-8")
    rows = list(engine_memory.rows())
    assert {row[0] for row in rows} == presets().keys()
    for row in rows:
        assert f"| {' | '.join(row)} |" in page
