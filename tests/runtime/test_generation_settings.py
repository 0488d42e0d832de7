"""How tokens are chosen: what a request or the checkpoint asks for, answered as transformers answers it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from installed_command import IMAGES
from PIL import Image
from transformers import AutoModelForImageTextToText

import asap_export
from asap_export.bundle import Bundle, GenerationInfo
from asap_export.checkpoint.loading import load_processor
from asap_export.errors import UserError
from asap_export.runtime.model import Model
from asap_export.runtime.prompt import Prompt
from asap_export.runtime.request import Request

MAT = IMAGES / "mat.png"
QUESTION = "USER: <image>\nWhat is on the mat and what is beside it? ASSISTANT:"


@pytest.fixture(scope="module")
def dense(dense_bundle) -> Model:
    return asap_export.load(dense_bundle, provider="cpu", threads=1)


@pytest.fixture(scope="module")
def greedy(dense) -> asap_export.Answer:
    return dense.generate(MAT, QUESTION, 24, template=False)


@pytest.fixture(scope="module")
def transformers(random_checkpoint, dense):
    """Its answer's tokens, for the settings of its ``generate``."""
    llava = AutoModelForImageTextToText.from_pretrained(random_checkpoint, dtype=torch.float32).eval()
    processor: Any = load_processor(random_checkpoint, dense.spec)

    def answer(**settings: Any) -> list[int]:
        inputs = processor(text=QUESTION, images=Image.open(MAT).convert("RGB"), return_tensors="pt")
        if "stop_strings" in settings:
            settings["tokenizer"] = processor.tokenizer
        sequences = llava.generate(
            **inputs,
            do_sample=False,
            suppress_tokens=[dense.spec.image_token_id],
            max_new_tokens=24,
            **settings,
        )
        return sequences[0, inputs["input_ids"].shape[1] :].tolist()

    return answer


WAYS: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 3},
    {"min_new_tokens": 20},
    {"repetition_penalty": 1.1, "no_repeat_ngram_size": 2, "min_new_tokens": 8},
]


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_greedy_answers_are_transformers_token_for_token(dense, transformers, settings) -> None:
    answer = dense.generate(MAT, QUESTION, 24, template=False, **settings)
    assert list(answer.token_ids) == transformers(**settings)


def test_settings_change_answers(dense) -> None:
    answers = {dense.generate(MAT, QUESTION, 24, template=False, **settings).token_ids for settings in WAYS}
    assert len(answers) >= 5


@pytest.mark.parametrize(("start", "end"), [(3, 6), (0, 2), (10, 11)])
def test_an_answer_ends_in_front_of_a_stop_string(dense, transformers, greedy, start, end) -> None:
    stop = greedy.text[start:end]
    answer = dense.generate(MAT, QUESTION, 24, template=False, stop=[stop, "never written"])
    assert list(answer.token_ids) == transformers(stop_strings=[stop, "never written"])
    assert answer.stopped_by == "stop"
    assert answer.text == greedy.text[: greedy.text.index(stop)]


def test_a_stop_string_may_be_a_special_token(dense) -> None:
    """As it is in checkpoints whose turns end with one that their generation settings do not know as an end."""
    special = dense.reader._token(dense.spec.eos_token_ids[0])
    without_ends = Model(
        replace(
            dense.bundle, manifest=replace(dense.bundle.manifest, model=replace(dense.spec, eos_token_ids=()))
        ),
        dense.graphs.sessions,
        dense.reader._preprocess,
        caches=dense.graphs.caches,
    )
    prompt = without_ends.reader.read(QUESTION, [MAT], template=False)
    told = without_ends.reader.text([5, dense.spec.eos_token_ids[0]], special=True)
    assert special in told
    answers, _ = without_ends.answer([prompt], [Request((), "", 200, stop=special, temperature=3.0)])
    assert answers[0].stopped_by in ("stop", "length")
    assert special not in answers[0].text


def test_no_part_of_a_stop_string_is_streamed(dense, greedy) -> None:
    stop = greedy.text[12:20]
    stream = dense.stream(MAT, QUESTION, 24, template=False, stop=stop)
    pieces = list(stream)
    assert "".join(pieces) == stream.answer.text == greedy.text[: greedy.text.index(stop)]


def test_what_only_looks_like_a_stop_string_is_streamed_after_all(dense, greedy) -> None:
    stop = greedy.text[4:9] + "\x00"
    assert "".join(dense.stream(MAT, QUESTION, 24, template=False, stop=stop)) == greedy.text


def test_rows_of_a_batch_have_settings_of_their_own(dense) -> None:
    ways = [{}, {"repetition_penalty": 1.4}, {"no_repeat_ngram_size": 1}, {"temperature": 1.0, "seed": 3}]
    together = dense.generate_batch([Request(MAT, QUESTION, 12, template=False, **way) for way in ways])
    alone = [dense.generate(MAT, QUESTION, 12, template=False, **way) for way in ways]
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    assert len({answer.token_ids for answer in together}) > 1


def test_a_row_that_a_stop_string_ends_leaves_the_others_alone(dense, greedy) -> None:
    stop = greedy.text[6:9]
    stopped, whole = dense.generate_batch(
        [Request(MAT, QUESTION, 24, template=False, stop=stop), Request(MAT, QUESTION, 24, template=False)]
    )
    assert stopped.text == greedy.text[: greedy.text.index(stop)]
    assert whole.token_ids == greedy.token_ids


def test_repetitions_of_earlier_turns_count(dense) -> None:
    """A second turn is answered as the whole conversation is in one prompt."""
    settings = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}
    chat = dense.chat()
    first = chat.ask(MAT, "What is on the mat?", 12, **settings)
    second = chat.ask((), "Is it red?", 12, **settings)
    opening = dense.reader.read("What is on the mat?", [MAT])
    turn = dense.reader.read_turn(chat.turns[:1], "Is it red?", (), first.token_ids[-1])
    ids = np.concatenate([opening.input_ids, np.array(first.token_ids[:-1]), turn.input_ids])
    whole = Prompt(ids, opening.pixel_values, opening.image_sizes)
    answers, _ = dense.answer([whole], [Request((), "", 12, **settings)])
    assert second.token_ids == answers[0].token_ids


def with_defaults(dense: Model, **defaults: Any) -> Model:
    manifest = replace(dense.bundle.manifest, generation=GenerationInfo(**defaults))
    bundle: Bundle = replace(dense.bundle, manifest=manifest)
    return Model(bundle, dense.graphs.sessions, dense.reader._preprocess, caches=dense.graphs.caches)


def test_the_bundles_settings_hold_unless_a_request_brings_its_own(dense, greedy) -> None:
    model = with_defaults(dense, max_new_tokens=7, repetition_penalty=1.4, stop=(greedy.text[3:6],))
    plain = dense.generate(MAT, QUESTION, 7, template=False, repetition_penalty=1.4)
    assert model.generate(MAT, QUESTION, template=False, stop=()).token_ids == plain.token_ids
    own = model.generate(MAT, QUESTION, 24, template=False, repetition_penalty=1.0, stop=())
    assert own.token_ids == greedy.token_ids


def test_the_bundles_length_is_cut_to_the_room_there_is(dense) -> None:
    positions = dense.spec.max_position_embeddings
    prompt = dense.reader.read(QUESTION, [MAT], template=False)
    fill = positions - len(prompt.input_ids) - 2
    long = prompt.after([5] * fill)
    answers, _ = dense.answer([long], [Request((), "")])
    assert len(answers[0].token_ids) <= 3
    with pytest.raises(UserError, match="lower max_new_tokens to 3"):
        dense.answer([long], [Request((), "", 4)])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"top_k": -1}, "expected top_k of 0 or more, found -1; 0 takes all tokens"),
        ({"min_p": 1.5}, r"expected min_p in \[0, 1\], found 1.5; 0 takes all tokens"),
        ({"repetition_penalty": 0}, "expected repetition_penalty above 0, found 0; 1 is none"),
        ({"no_repeat_ngram_size": -1}, "expected no_repeat_ngram_size of 0 or more, found -1"),
        ({"min_new_tokens": -1}, "expected min_new_tokens of 0 or more, found -1"),
        ({"stop": ["a", ""]}, "expected stop of at least one character each, found none in one"),
        ({"stop": ""}, "expected stop of at least one character each, found none in one"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"^{said}"):
        Request(MAT, "What?", **wrong)
