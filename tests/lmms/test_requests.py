"""lmms-eval's requests, answered without lmms-eval: the stand-ins have the fields of its ``Instance``."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from installed_command import IMAGES
from PIL import Image

from asap_export.errors import UserError
from asap_export.lmms.requests import answer, model_arguments, request_of
from asap_export.runtime.graphs import Graphs
from asap_export.runtime.model import Model, load

DOCUMENTS = {"mats": {"test": [{"question": "What is on the mat?", "image": IMAGES / "mat.png"}]}}


@dataclass
class Instance:
    """As lmms-eval makes one for a task whose output_type is generate_until."""

    args: tuple[Any, ...]


def instance(settings: dict[str, Any] | None = None, doc_to_visual: Any = None) -> Instance:
    def visual(document):
        return [Image.open(document["image"]).convert("RGB")]

    return Instance(("What is on the mat?", settings, doc_to_visual or visual, 0, "mats", "test"))


def asked(settings: dict[str, Any] | None = None, doc_to_visual: Any = None):
    return request_of(instance(settings, doc_to_visual).args, DOCUMENTS)


@pytest.fixture(scope="module")
def model(pruned_bundle: Path) -> Model:
    return load(pruned_bundle, "cpu", threads=1)


def test_a_question_is_answered_as_the_bundle_answers_it(model: Model):
    settings = {"max_new_tokens": 6, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}
    question = asked(settings)
    (image,) = question.images
    assert image.size == (640, 480)
    expected = model.generate([IMAGES / "mat.png"], "What is on the mat?", max_new_tokens=6).text
    assert answer(model, question, {}) == expected
    assert answer(model, question, {"keep": 2}) == (
        model.generate([IMAGES / "mat.png"], "What is on the mat?", max_new_tokens=6, keep=2).text
    )
    assert settings["max_new_tokens"] == 6  # lmms-eval writes them into its log


def test_an_answer_ends_before_the_first_stop(model: Model):
    whole = answer(model, asked({"max_new_tokens": 12}), {})
    middle, last = whole[3:5], whole[-1]
    assert (
        answer(model, asked({"max_new_tokens": 12, "until": [last, middle]}), {})
        == whole[: whole.find(middle)]
    )
    assert answer(model, asked({"max_new_tokens": 12, "until": whole[0]}), {}) == ""
    assert answer(model, asked({"max_new_tokens": 12, "until": ["", "\n\n\n"]}), {}) == whole


def test_a_stop_ends_the_decoding_too(model: Model, monkeypatch: pytest.MonkeyPatch):
    whole = answer(model, asked({"max_new_tokens": 12}), {})
    steps = []
    step = Graphs.step
    monkeypatch.setattr(Graphs, "step", lambda *inputs: steps.append(1) or step(*inputs))
    answer(model, asked({"max_new_tokens": 12, "until": [whole[0]]}), {})
    assert len(steps) < 4


def test_sampling_is_what_the_task_says(model: Model):
    sampled = {"max_new_tokens": 8, "do_sample": True, "temperature": 3.0, "seed": 4}
    assert answer(model, asked(sampled), {}) == answer(model, asked(sampled), {})
    assert answer(model, asked(sampled), {}) != answer(model, asked(sampled | {"seed": 5}), {})
    greedy = answer(model, asked({"max_new_tokens": 8}), {})
    assert answer(model, asked(sampled | {"do_sample": False}), {}) == greedy
    assert answer(model, asked({"max_new_tokens": 8, "temperature": 0, "top_p": 0}), {}) == greedy


def test_more_new_tokens_than_there_are_positions_are_lowered(model: Model):
    answer(model, asked({"max_new_tokens": 1 << 20, "until": list(map(chr, range(32, 127)))}), {})


@pytest.mark.parametrize(
    ("visual", "count"),
    [
        (lambda document: None, 0),
        (lambda document: [], 0),
        (lambda document: document["image"], 1),
        (lambda document: [[document["image"]], document["image"]], 2),
    ],
)
def test_tasks_give_their_images_in_several_forms(model: Model, visual, count):
    question = asked({"max_new_tokens": 1}, visual)
    assert len(question.images) == count
    answer(model, question, {})


def test_what_a_bundle_cannot_do_is_refused(model: Model, tmp_path: Path):
    with pytest.raises(UserError, match="expected num_beams of 1, found 4"):
        answer(model, asked({"num_beams": 4}), {})
    film = tmp_path / "film.mp4"
    film.write_bytes(b"moving pictures")
    with pytest.raises(UserError, match=r"expected an image in .*film\.mp4"):
        answer(model, asked({}, lambda document: [str(film)]), {})


def test_model_arguments_are_those_of_the_readme():
    found = model_arguments({"bundle": "out/", "keep_ratio": 0.2, "batch_size": 1, "device": "cpu"})
    assert (found.bundle, found.provider, found.budget) == (Path("out"), "cpu", {"keep_ratio": 0.2})
    assert model_arguments({"bundle": "out", "device": "cuda:0", "provider": "cuda"}).provider == "cuda"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "expected --model_args bundle=FOLDER, found no bundle"),
        ({"bundle": "out", "pretrained": "x"}, "found pretrained; leave it out"),
        ({"bundle": "out", "batch_size": 4}, "expected --batch_size 1, found 4"),
        ({"bundle": "out", "keep": 3, "keep_ratio": 0.5}, "give only one of them"),
        ({"bundle": "out", "keep": 0}, "expected keep of at least 1"),
    ],
)
def test_wrong_model_arguments_get_one_line(given: dict[str, Any], reason: str):
    with pytest.raises(UserError, match=reason) as error:
        model_arguments(given)
    assert "\n" not in str(error.value)


def test_the_package_registers_the_model_the_way_lmms_eval_looks_for_it():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["lmms_eval.models"] == {"asap_export": "asap_export.lmms:manifest"}
    assert "lmms-eval" in json.dumps(project["optional-dependencies"]["lmms"])
