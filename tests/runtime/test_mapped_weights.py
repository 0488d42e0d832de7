"""A bundle whose weights do not fit into memory as float32 still answers, from its files, and says so."""

import pytest
from installed_command import IMAGES

import asap_export
from asap_export.bundle import Bundle
from asap_export.errors import UserError
from asap_export.runtime.providers import weight_memory


def stored(path):
    return sum(file.stat().st_size for file in (path / "weights").iterdir())


@pytest.fixture
def free_memory(monkeypatch):
    return lambda size: monkeypatch.setattr("asap_export.runtime.model.available_memory", lambda: size)


def test_weights_stay_on_disk_and_the_answer_is_the_same(fp16_bundle, free_memory):
    held = asap_export.load(fp16_bundle, "cpu")
    assert held.note is None
    free_memory(stored(fp16_bundle) + 1)
    mapped = asap_export.load(fp16_bundle, "cpu")
    assert mapped.note is not None and "--quantize int4" in mapped.note
    answers = [
        model.generate(IMAGES / "mat.png", "What is this?", max_new_tokens=8) for model in (held, mapped)
    ]
    assert answers[0].token_ids == answers[1].token_ids


def test_weights_that_fit_in_no_form_are_refused(fp16_bundle, free_memory):
    free_memory(1_000_000)
    with pytest.raises(UserError, match=r"of free memory for the weights .* found 1 MB; .*int4"):
        asap_export.load(fp16_bundle, "cpu")


def test_fp16_weights_take_twice_their_size_on_a_cpu(fp16_bundle, pruned_bundle):
    assert weight_memory(Bundle.open(fp16_bundle)) == (stored(fp16_bundle), 2 * stored(fp16_bundle))
    assert weight_memory(Bundle.open(pruned_bundle)) == (stored(pruned_bundle), stored(pruned_bundle))
