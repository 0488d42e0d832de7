"""A bundle that prunes: budgets, batches, several turns, sampling, streaming."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import asap_export
from asap_export.errors import UserError
from asap_export.runtime.graphs import Graphs
from asap_export.runtime.request import Request

IMAGES = Path(__file__).parents[2] / "examples" / "images"
MAT, SIGN, TOWER = IMAGES / "mat.png", IMAGES / "sign.png", IMAGES / "tower.png"


@pytest.fixture(scope="module")
def pruned(pruned_bundle):
    return asap_export.load(pruned_bundle, provider="cpu", threads=1)


@pytest.fixture(scope="module")
def dense(dense_bundle):
    return asap_export.load(dense_bundle, provider="cpu", threads=1)


@pytest.fixture(scope="module")
def untrimmed(untrimmed_bundle):
    return asap_export.load(untrimmed_bundle, provider="cpu", threads=1)


def test_the_bundles_budget_holds_unless_a_request_brings_its_own(pruned) -> None:
    def kept(**budget: float) -> int:
        return pruned.generate(MAT, "What is it?", max_new_tokens=1, **budget).kept_visual_tokens

    answer = pruned.generate(MAT, "What is it?", max_new_tokens=1)
    visual, model, pruning = answer.visual_tokens, pruned.spec, pruned.bundle.manifest.pruning
    default = pruned.bundle.manifest.budget.keep_for(visual, model.layers, pruning.prune_after)
    assert answer.kept_visual_tokens == default < visual
    assert kept(keep=17) == 17
    assert kept(keep_ratio=0.25) == round(visual / 4)
    assert kept(budget=100) == round((100 * model.layers - 2 * visual) / (model.layers - 2))
    assert kept(keep=100_000) == visual  # an image with fewer tokens keeps them all


@pytest.mark.parametrize(
    "wrong", [{"keep": 0}, {"keep_ratio": 2.0}, {"keep": 5, "budget": 9.0}, {"budget": 1.0}]
)
def test_budgets_that_cannot_be_met_are_refused(pruned, wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"^expected"):
        pruned.generate(MAT, "What is it?", **wrong)


def test_rows_of_equal_lengths_answer_as_they_do_alone(pruned) -> None:
    requests = [Request((image,), "What is it?", 12, keep=keep) for image, keep in ((MAT, 40), (MAT, 40))]
    together = pruned.generate_batch(requests)
    alone = pruned.generate(MAT, "What is it?", 12, keep=40)
    assert [answer.token_ids for answer in together] == [alone.token_ids] * 2


def test_rows_of_a_batch_keep_what_they_asked_for_at_least(pruned) -> None:
    requests = [
        Request((MAT,), "What is it?", 8, keep=30),
        Request((SIGN, TOWER), "And what would you say these two are, in a few more words?", 8, keep=60),
        Request((), "No image at all.", 8),
    ]
    answers = pruned.generate_batch(requests)
    assert answers[0].kept_visual_tokens >= 60
    assert answers[1].kept_visual_tokens == 60
    assert (answers[2].visual_tokens, answers[2].kept_visual_tokens) == (0, 0)
    # A row without images is what it is alone, whoever its neighbours are.
    assert answers[2].token_ids == pruned.generate((), "No image at all.", 8).token_ids


def test_without_images_nothing_is_pruned(pruned, dense) -> None:
    mine, theirs = pruned.chat(), dense.chat()
    for text in ("Tell me of the sea.", "And of the sky?", "And of the stars?"):
        assert (
            mine.ask((), text, max_new_tokens=10).token_ids
            == theirs.ask((), text, max_new_tokens=10).token_ids
        )


def test_each_turn_prunes_its_own_images(pruned) -> None:
    chat = pruned.chat()
    first = chat.ask(MAT, "What is it?", max_new_tokens=4, keep=20)
    second = chat.ask([SIGN, TOWER], "And this?", max_new_tokens=4, keep=35)
    third = chat.ask((), "Which is older?", max_new_tokens=4)
    assert [turn.kept_visual_tokens for turn in (first, second, third)] == [20, 35, 0]
    assert second.visual_tokens == pruned.generate([SIGN, TOWER], "x", 1).visual_tokens


def test_a_refused_turn_leaves_the_conversation_as_it_was(pruned) -> None:
    chat, undisturbed = pruned.chat(), pruned.chat()
    for conversation in (chat, undisturbed):
        conversation.ask(MAT, "What is it?", max_new_tokens=4)
    with pytest.raises(UserError, match="found nothing"):
        chat.ask("no such file.png", "And this?")
    with pytest.raises(UserError, match="lower max_new_tokens to"):
        chat.ask(SIGN, "And this?", max_new_tokens=10**6)
    answers = [conversation.ask((), "Why?", max_new_tokens=6) for conversation in (chat, undisturbed)]
    assert answers[0].token_ids == answers[1].token_ids


def test_caches_that_keep_pruned_tokens_in_early_layers(untrimmed) -> None:
    reader, prompt = untrimmed.reader, "What is it?"
    read = reader.read(prompt, [MAT])
    [answer], cache = untrimmed.answer([read], [Request((MAT,), prompt, 5, keep=20)])
    fed = len(read.input_ids) + len(answer.token_ids) - 1
    assert cache.early_mask is not None
    assert cache.early_mask.shape == (1, fed)
    assert cache.mask.shape == (1, fed - answer.visual_tokens + 20)
    assert cache.fed.tolist() == [fed]

    chat = untrimmed.chat()
    kept = [
        chat.ask(image, "And this?", max_new_tokens=4, keep=15).kept_visual_tokens for image in (SIGN, TOWER)
    ]
    assert kept == [15, 15]


def test_trimming_early_caches_does_not_change_the_first_token(pruned, untrimmed) -> None:
    first = [model.generate(MAT, "What is it?", 1, keep=40).token_ids for model in (pruned, untrimmed)]
    assert first[0] == first[1]


def test_a_half_precision_bundle_answers(fp16_bundle) -> None:
    model = asap_export.load(fp16_bundle, threads=1)
    answer = model.generate([MAT, SIGN], "What are these?", max_new_tokens=5)
    assert model.provider == "cpu"
    assert 0 < answer.kept_visual_tokens < answer.visual_tokens


def test_draws_repeat_with_their_seed(pruned) -> None:
    def drawn(seed: int) -> tuple[int, ...]:
        return pruned.generate(SIGN, "Write a poem.", 20, temperature=1.5, top_p=0.95, seed=seed).token_ids

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(4)}) > 1
    request = Request((SIGN,), "Write a poem.", 20, temperature=1.5, top_p=0.95, seed=1)
    assert [answer.token_ids for answer in pruned.generate_batch([request, request])] == [drawn(1)] * 2


def test_a_tiny_top_p_is_greedy(pruned) -> None:
    greedy = pruned.generate(SIGN, "Write a poem.", 12)
    assert (
        pruned.generate(SIGN, "Write a poem.", 12, temperature=0.8, top_p=1e-6).token_ids == greedy.token_ids
    )


POEM = {"max_new_tokens": 24, "temperature": 2.0, "seed": 3}


def test_streamed_pieces_are_the_answer(pruned) -> None:
    stream = pruned.stream(SIGN, "Write a poem.", **POEM)
    pieces = list(stream)
    answer = pruned.generate(SIGN, "Write a poem.", **POEM)
    assert "".join(pieces) == stream.answer.text == answer.text
    assert (stream.answer.token_ids, len(pieces) > 1) == (answer.token_ids, True)


def test_a_stream_answers_without_a_loop_or_behind_half_of_one(pruned) -> None:
    whole = pruned.generate(SIGN, "Write a poem.", **POEM).text
    assert pruned.stream(SIGN, "Write a poem.", **POEM).answer.text == whole
    begun = pruned.stream(SIGN, "Write a poem.", **POEM)
    first = next(begun)
    assert begun.answer.text == whole and whole.startswith(first) and list(begun) == []


def test_nothing_runs_ahead_of_the_pieces_or_behind_a_loop_that_was_left(pruned, monkeypatch) -> None:
    steps: list[int] = []
    step = Graphs.step
    monkeypatch.setattr(Graphs, "step", lambda *inputs: steps.append(1) or step(*inputs))
    stream = pruned.stream(SIGN, "Write a poem.", **POEM)
    assert steps == []
    for _ in stream:
        break
    begun = len(steps)
    assert begun < 24
    stream.close()
    with pytest.raises(UserError, match="found one that was broken off; ask again"):
        _ = stream.answer
    assert len(steps) == begun


def test_a_turn_that_was_broken_off_leaves_the_conversation_as_it_was(pruned) -> None:
    chat, undisturbed = pruned.chat(), pruned.chat()
    for conversation in (chat, undisturbed):
        conversation.ask(MAT, "What is it?", max_new_tokens=4)
    for _ in chat.stream(SIGN, "And this?", **POEM):
        break
    assert len(chat.turns) == 1
    streams = [conversation.stream((), "Why?", max_new_tokens=6) for conversation in (chat, undisturbed)]
    assert list(streams[0]) == list(streams[1])
    assert streams[0].answer.token_ids == streams[1].answer.token_ids
    assert chat.turns == undisturbed.turns and len(chat.turns) == 2


def test_of_two_turns_at_once_the_second_to_end_is_refused(pruned) -> None:
    chat = pruned.chat()
    chat.ask(MAT, "What is it?", max_new_tokens=4)
    early = chat.stream((), "Why?", max_new_tokens=6)
    next(early)
    chat.ask((), "Since when?", max_new_tokens=4)
    with pytest.raises(UserError, match="expected one turn at a time"):
        _ = early.answer
    assert [turn.text for turn in chat.turns] == ["What is it?", "Since when?"]


def test_images_come_before_the_prompt_and_the_error_says_so(pruned) -> None:
    with pytest.raises(UserError, match=r"expected the prompt as text, found .* list; images come first"):
        pruned.generate("What is it?", [MAT])
    with pytest.raises(UserError, match=r"expected an image file at What is it\?, found nothing"):
        pruned.chat().ask("What is it?", str(MAT))


def test_images_in_every_form_get_the_same_answer(pruned) -> None:
    with Image.open(MAT) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    forms = (MAT, str(MAT), MAT.read_bytes(), BytesIO(MAT.read_bytes()), pixels, Image.fromarray(pixels))
    assert len({pruned.generate(form, "What is it?", 6).token_ids for form in forms}) == 1


def test_what_is_printed_of_them_is_short(pruned) -> None:
    request = Request([np.zeros((1000, 1000, 3), np.uint8), MAT], "What is it?", keep=9)
    assert repr(request) == f"Request([<array, 1000 x 1000 x 3>, {str(MAT)!r}], 'What is it?', keep=9)"
    chat = pruned.chat()
    answer = chat.ask(MAT, "What is it?", max_new_tokens=2, keep=9)
    assert repr(answer) == f"Answer({answer.text!r}, 2 tokens, 9 of 268 visual tokens kept)"
    assert repr(chat) == "<Conversation of 1 turn>"
    assert repr(pruned) == f"<Model of {pruned.bundle.path}, cpu>"


def test_answers_say_why_they_end(pruned) -> None:
    cut = pruned.generate(SIGN, "Write a poem.", 3)
    assert (cut.stopped_by, len(cut.token_ids)) == ("length", 3)
    assert len(cut.timings.decode) == 2  # the first token comes from the prefill
    assert min(cut.timings.preprocess, cut.timings.vision, cut.timings.embed, cut.timings.prefill) > 0

    [end] = pruned.spec.eos_token_ids
    ended = next(
        answer
        for seed in range(50)  # hot enough for any token to be as likely as another
        if end in (answer := pruned.generate((), "a", 400, temperature=50.0, seed=seed)).token_ids
    )
    assert ended.stopped_by == "end"
    assert ended.token_ids.index(end) == len(ended.token_ids) - 1
    assert "</s>" not in ended.text


def test_requests_beyond_the_models_positions_are_refused(pruned) -> None:
    positions = pruned.spec.max_position_embeddings
    with pytest.raises(UserError, match=f"at most {positions} tokens.*shorten the prompt"):
        pruned.generate((), "sea " * positions)
    prompt = len(pruned.reader.read("Hello").input_ids)
    with pytest.raises(UserError, match=f"lower max_new_tokens to {positions - prompt + 1}$"):
        pruned.generate((), "Hello", max_new_tokens=positions)


@pytest.mark.parametrize(
    "wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"seed": -1}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"^expected (max_new_tokens|temperature|top_p|seed) "):
        Request((), "What?", **wrong)


def test_graphs_run_one_by_one_on_arrays(pruned) -> None:
    prompt = pruned.reader.read("What is it?", [MAT])
    gather_index = np.arange(10)
    features = pruned.vision(prompt.pixel_values, gather_index)
    assert features.shape == (10, pruned.spec.hidden_size)

    image = pruned.spec.image_token_id
    ids = np.array([[5, *[image] * 10, 6, 7]])
    embeds = pruned.embed(ids, features)
    np.testing.assert_array_equal(embeds[0, 1:11], features)

    inputs = {
        "inputs_embeds": embeds,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(13)[None],
        "visual_mask": ids == image,
        "kept_length": np.array(7),
    }
    outputs = pruned.decoder_step(inputs)
    assert outputs["logits"].shape == (1, 1, pruned.spec.vocab_size)
    assert outputs["kept_index"].shape == (1, 7)
    assert {0, 11, 12} <= set(outputs["kept_index"][0].tolist())  # text stays
    assert outputs["present.0.key"].shape[2] == 7
