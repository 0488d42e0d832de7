"""Answers on caches that grow in place are those on caches made anew at every step."""

from pathlib import Path

import pytest
from installed_command import IMAGES

import asap_export
from asap_export.bundle import Bundle
from asap_export.exporter import ExportRequest, export
from asap_export.runtime.buffers import Buffers
from asap_export.runtime.model import Model
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.providers import cache_form, open_sessions
from asap_export.runtime.request import Request

MAT = IMAGES / "mat.png"


def growing(folder: Path) -> Model:
    return asap_export.load(folder, "cpu", threads=1)


def copying(folder: Path) -> Model:
    """The same graphs, whose outputs are left to ONNX Runtime."""
    bundle = Bundle.open(folder)
    preprocess = OnnxRuntimeSession(bundle.graph_path("preprocess"), "cpu", 1)
    caches = cache_form(bundle, "cpu")._replace(growing=())
    return Model(bundle, open_sessions(bundle, "cpu", 1), preprocess, caches=caches)


@pytest.mark.parametrize("bundle", ["pruned_bundle", "fp16_bundle", "dense_bundle", "untrimmed_bundle"])
def test_an_answer_longer_than_the_first_buffers_and_a_later_turn(bundle, request) -> None:
    folder = request.getfixturevalue(bundle)
    said = []
    for model in (growing(folder), copying(folder)):
        chat = model.chat()
        first = chat.ask(MAT, "What is on the mat?", max_new_tokens=220)
        said.append((first.token_ids, chat.ask(MAT, "And how many?", max_new_tokens=8).token_ids))
    assert said[0] == said[1]
    assert len(said[0][0]) == 220


@pytest.mark.long
@pytest.mark.parametrize(
    "passes", [("fused-attention", "skipped-cut"), ("blockwise-soft-mask", "skipped-cut")]
)
def test_caches_of_which_only_some_grow(short_checkpoint, exported, tmp_path, passes) -> None:
    """Left out, a pass leaves its layers' caches to be made anew; what was cut has to leave these, too."""
    request = ExportRequest(
        model=str(short_checkpoint), output=tmp_path / "bundle", dtype="fp32", cpu_passes=passes
    )
    export(request)
    whole = exported("short-pruned", "fp32", short_checkpoint)
    model, reference = growing(request.output), growing(whole)
    form = model.graphs.caches
    assert set(form.untrimmed) - set(form.growing)
    said = []
    for one in (model, reference):
        chat = one.chat()
        first = chat.ask(MAT, "What is on the mat?", max_new_tokens=8)
        said.append((first.token_ids, chat.ask(MAT, "And how many?", max_new_tokens=8).token_ids))
    assert said[0] == said[1]


def test_two_turns_from_one_cache_do_not_disturb_each_other(pruned_bundle) -> None:
    said = []
    for model in (growing(pruned_bundle), copying(pruned_bundle)):
        first, cache = turn(model, "What is on the mat?", MAT)
        one, _ = turn(model, "And the cat?", cache=cache)
        two, _ = turn(model, "Why so?", cache=cache)
        assert turn(model, "And the cat?", cache=cache)[0] == one
        said.append((first, one, two))
    assert said[0] == said[1]


def test_a_batch_with_padding_is_answered_without_buffers_and_one_without_in_them(pruned_bundle) -> None:
    model = growing(pruned_bundle)
    equal = [Request((), "What is it?", 3), Request((), "What is on?", 3)]
    prompts = [model.reader.read(request.prompt, request.images, True) for request in equal]
    lengths = [len(prompt.input_ids) for prompt in prompts]
    shorter = [prompts[0], model.reader.read("What?", (), True)]
    assert lengths[0] == lengths[1] > len(shorter[1].input_ids)
    assert model.answer(prompts, equal)[1].buffers is not None
    assert model.answer(shorter, equal)[1].buffers is None


@pytest.mark.parametrize("bundle", ["pruned_bundle", "untrimmed_bundle", "dense_bundle"])
def test_a_batch_in_which_a_row_ends_goes_on_in_its_buffers(bundle, request, monkeypatch) -> None:
    model = growing(request.getfixturevalue(bundle))
    prompts = [model.reader.read(text, [MAT], True) for text in ("What is it?", "What is on?", "Who is on?")]
    assert len({len(prompt.input_ids) for prompt in prompts}) == 1
    requests = [Request((), "", most) for most in (2, 40, 20)]
    used, copies = [], []
    claimed, content = Buffers.claimed, Buffers.content
    monkeypatch.setattr(
        Buffers, "claimed", lambda self, *places: used.append(claimed(self, *places)) or used[-1]
    )
    monkeypatch.setattr(
        Buffers,
        "content",
        lambda self, length, names=None: copies.append(names) or content(self, length, names),
    )
    answers, cache = model.answer(prompts, requests)
    assert [len(answer.token_ids) for answer in answers] == [2, 40, 20]
    assert cache.buffers is not None and len(used) == 40 and set(map(id, used)) == {id(cache.buffers)}
    assert not any(copies)
    assert cache.mask.sum(axis=1).tolist() == [cache.mask.shape[1] - missing for missing in (38, 0, 20)]
    for prompt, asked, answer in zip(prompts, requests, answers, strict=True):
        assert model.answer([prompt], [asked])[0][0].token_ids == answer.token_ids

    later = [Request((), "", 8)] * 3
    texts = [model.reader.read(text, (), False) for text in ("And now?", "And how?", "And who?")]
    said = [answer.token_ids for answer in model.answer(texts, later, cache=cache)[0]]
    for row, (prompt, asked, text) in enumerate(zip(prompts, requests, texts, strict=True)):
        alone = model.answer([prompt], [asked])[1]
        assert model.answer([text], later[:1], cache=alone)[0][0].token_ids == said[row]


def turn(model: Model, prompt: str, *images, cache=None):
    request = Request(images, prompt, 10)
    answers, after = model.answer([model.reader.read(prompt, images, True)], [request], cache=cache)
    return answers[0].token_ids, after
