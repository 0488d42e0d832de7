"""A prompt that memory cannot hold is refused before it runs."""

import pytest
from installed_command import IMAGES

import asap_export
from asap_export.errors import UserError
from asap_export.runtime.memory import RunMemory, memory_needed


@pytest.fixture
def free_memory(monkeypatch):
    return lambda size: monkeypatch.setattr("asap_export.runtime.memory.available_memory", lambda: size)


def test_what_a_prompt_takes_grows_with_its_square(pruned_bundle):
    spec = asap_export.load(pruned_bundle, "cpu").spec
    scores = 3 * 4 * spec.heads * 4000**2
    assert scores < memory_needed(spec, 1, 4000, 0) < 1.5 * scores
    assert memory_needed(spec, 2, 4000, 0) == 2 * memory_needed(spec, 1, 4000, 0)
    assert memory_needed(spec, 1, 1, 4000) < memory_needed(spec, 1, 4000, 0) / 10


def test_a_prompt_that_does_not_fit_is_refused_and_a_shorter_one_answered(pruned_bundle, free_memory):
    model = asap_export.load(pruned_bundle, "cpu")
    free_memory(memory_needed(model.spec, 1, 60, 0))
    said = r"expected about \d+ MB of free memory for a run of \d+ tokens, found \d+ MB; shorten the request"
    with pytest.raises(UserError, match=said):
        model.generate(IMAGES / "mat.png", "What is on the mat?", max_new_tokens=1)
    assert model.generate((), "What?", max_new_tokens=1).visual_tokens == 0


def test_memory_that_a_run_has_taken_is_not_asked_for_again(pruned_bundle, free_memory):
    spec = asap_export.load(pruned_bundle, "cpu").spec
    memory = RunMemory(spec)
    with memory.room(1, 500, 0):
        free_memory(0)
    with memory.room(1, 400, 0):
        pass
    with pytest.raises(UserError, match="for a run of 600 tokens, found 0 MB"), memory.room(1, 600, 0):
        pass
