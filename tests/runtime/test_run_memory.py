"""A prompt that memory cannot hold is refused before it runs."""

from dataclasses import replace

import pytest
from bundle_cases import SPEC, example_manifest
from installed_command import IMAGES

import asap_export
from asap_export.errors import UserError
from asap_export.pruning.config import PruningConfig
from asap_export.runtime.run_memory import RunMemory, memory_needed, scores_in_blocks


@pytest.fixture
def free_memory(monkeypatch):
    return lambda size: monkeypatch.setattr("asap_export.runtime.run_memory.available_memory", lambda: size)


def test_what_a_prompt_takes_grows_with_its_square_or_in_blocks_with_its_length():
    scores, blocks = 3 * 4 * SPEC.heads * 4000**2, 3 * 4 * SPEC.heads * 512 * 4000
    others = memory_needed(SPEC, 1, 4000, 0, blocks=False) - scores
    assert 0 < others < scores / 2
    assert memory_needed(SPEC, 1, 4000, 0, blocks=True) == blocks + others
    assert memory_needed(SPEC, 1, 500, 100, blocks=True) == memory_needed(SPEC, 1, 500, 100, blocks=False)
    assert memory_needed(SPEC, 2, 4000, 0, True) == 2 * memory_needed(SPEC, 1, 4000, 0, True)


PASSES = ("fused-attention", "blockwise-soft-mask", "skipped-cut")


@pytest.mark.parametrize(
    ("passes", "dtype", "pruning", "blocks"),
    [
        (PASSES, "fp32", PruningConfig(), True),
        (PASSES, "fp32", PruningConfig(score="salience"), True),
        (PASSES, "fp32", PruningConfig("none", score="received"), True),
        (PASSES, "fp32", PruningConfig(score="received"), True),
        (PASSES, "fp32", PruningConfig(score="received", bidirectional=False), False),
        (PASSES, "fp32", PruningConfig("fastv", score="text"), False),
        (PASSES, "fp16", PruningConfig(), False),
        (PASSES[:1], "fp32", PruningConfig(), False),
    ],
)
def test_scores_are_held_in_blocks_where_no_layer_and_no_score_needs_every_row(
    passes, dtype, pruning, blocks
):
    manifest = example_manifest()
    decoder = replace(manifest.cpu_decoder, passes=passes)
    manifest = replace(manifest, cpu_decoder=decoder, dtype=dtype, pruning=pruning)
    assert scores_in_blocks(manifest) == blocks
    assert not scores_in_blocks(replace(manifest, cpu_decoder=None))


def test_a_prompt_that_does_not_fit_is_refused_and_a_shorter_one_answered(pruned_bundle, free_memory):
    model = asap_export.load(pruned_bundle, "cpu")
    free_memory(memory_needed(model.spec, 1, 60, 0, blocks=True))
    said = r"expected about \d+ MB of free memory for a run of \d+ tokens, found \d+ MB; shorten the request"
    with pytest.raises(UserError, match=said):
        model.generate(IMAGES / "mat.png", "What is on the mat?", max_new_tokens=1)
    assert model.generate((), "What?", max_new_tokens=1).visual_tokens == 0


def test_memory_that_a_run_has_taken_is_not_asked_for_again(free_memory):
    memory = RunMemory(SPEC, blocks=False)
    with memory.room(1, 500, 0, plain=True):
        free_memory(0)
    with memory.room(1, 400, 0, plain=True):
        pass
    with (
        pytest.raises(UserError, match="for a run of 600 tokens, found 0 MB"),
        memory.room(1, 600, 0, plain=True),
    ):
        pass


def test_padded_rows_take_more_than_plain_ones(free_memory):
    memory = RunMemory(SPEC, blocks=True)
    free_memory(memory_needed(SPEC, 2, 4000, 0, blocks=True))
    with memory.room(2, 4000, 0, plain=True):
        pass
    with pytest.raises(UserError, match="for a run of 4000 tokens"), memory.room(2, 4000, 0, plain=False):
        pass
