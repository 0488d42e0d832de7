"""A dense bundle answers as transformers' own model does, token for token."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import asap_export
from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.checkpoint.loading import load_model
from asap_export.errors import UserError
from asap_export.model.anyres import TileGeometry, tile_count
from asap_export.runtime.prompt import Prompt
from asap_export.runtime.request import Request

IMAGES = Path(__file__).parents[2] / "examples" / "images"
NEW_TOKENS = 16


@pytest.fixture(scope="module", params=["dense_bundle", "llava_1_5_bundle"], ids=["LLaVA-NeXT", "LLaVA-1.5"])
def bundle_name(request):
    return request.param


@pytest.fixture(scope="module")
def dense(bundle_name, request):
    return asap_export.load(request.getfixturevalue(bundle_name), provider="cpu", threads=1)


@pytest.fixture(scope="module")
def llava(bundle_name, request):
    name = "random_checkpoint" if bundle_name == "dense_bundle" else "llava_1_5_checkpoint"
    return load_model(open_checkpoint(request.getfixturevalue(name)), "fp32")


def transformers_answer(llava, prompt: Prompt, dense) -> tuple[int, ...]:
    """Greedy tokens of transformers for one prompt; like a bundle, it may not write the image token."""
    pictures = {}
    if prompt.image_sizes and not dense.spec.grid_pinpoints:
        pictures = {"pixel_values": torch.from_numpy(prompt.pixel_values)}
    elif prompt.image_sizes:
        pictures = {
            "pixel_values": torch.from_numpy(padded_tiles(prompt, dense)),
            "image_sizes": torch.tensor(prompt.image_sizes),
        }
    ids = torch.from_numpy(prompt.input_ids)[None]
    found = llava.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        suppress_tokens=[dense.spec.image_token_id],
        **pictures,
    )
    return tuple(found[0, ids.shape[1] :].tolist())


def padded_tiles(prompt: Prompt, dense) -> np.ndarray:
    """[images, most tiles, 3, h, w], the form that transformers' model takes."""
    counts = [tile_count(size, TileGeometry.of(dense.spec)) for size in prompt.image_sizes]
    parts = np.split(prompt.pixel_values, np.cumsum(counts)[:-1])
    return np.stack([np.pad(part, [(0, max(counts) - len(part))] + [(0, 0)] * 3) for part in parts])


@pytest.mark.parametrize(
    ("images", "text"),
    [
        ((), "Tell me of the sea."),
        (("mat.png",), "What is on the mat?"),
        (("skyline.jpg",), "How many towers?"),
        (("mat.png", "tower.png", "sign.png"), "Which is the tallest?"),
        (("tower.png", "sign.png"), "Is <image> taller than <image> by far?"),
    ],
)
def test_answers_equal_those_of_transformers(dense, llava, images: Sequence[str], text: str) -> None:
    files = [IMAGES / name for name in images]
    answer = dense.generate(files, text, max_new_tokens=NEW_TOKENS)

    assert answer.token_ids == transformers_answer(llava, dense.reader.read(text, files), dense)
    assert answer.kept_visual_tokens == answer.visual_tokens


def test_a_batch_of_different_lengths_answers_row_by_row(dense) -> None:
    requests = [
        Request((IMAGES / "mat.png",), "What is on the mat?", NEW_TOKENS),
        Request((), "Tell me of the sea.", 3),
        Request((IMAGES / "tower.png", IMAGES / "skyline.jpg"), "Compare these two.", NEW_TOKENS),
    ]
    together = dense.generate_batch(requests)
    alone = [dense.generate(r.images, r.prompt, r.max_new_tokens) for r in requests]

    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    assert [answer.visual_tokens for answer in together] == [answer.visual_tokens for answer in alone]
    assert len(together[1].token_ids) <= 3


def test_later_turns_continue_the_conversation(dense, llava) -> None:
    chat = dense.chat()
    first = chat.ask(IMAGES / "mat.png", "What is on the mat?", max_new_tokens=NEW_TOKENS)
    opening = dense.reader.read("What is on the mat?", [IMAGES / "mat.png"])
    reply = dense.reader.read_turn(
        chat.turns, "And on this sign?", [IMAGES / "sign.png"], first.token_ids[-1]
    )
    second = chat.ask(IMAGES / "sign.png", "And on this sign?", max_new_tokens=NEW_TOKENS)

    whole = Prompt(
        np.concatenate([opening.input_ids, first.token_ids[:-1], reply.input_ids]),
        np.concatenate([opening.pixel_values, reply.pixel_values]),
        opening.image_sizes + reply.image_sizes,
    )
    assert second.token_ids == transformers_answer(llava, whole, dense)
    assert second.visual_tokens == reply.input_ids.tolist().count(dense.spec.image_token_id)


def test_a_dense_bundle_refuses_to_prune(dense) -> None:
    with pytest.raises(UserError, match="found a dense one"):
        dense.generate(IMAGES / "sign.png", "What?", keep=10)
    assert dense.generate(IMAGES / "sign.png", "What?", 1, keep=10_000).token_ids  # nothing to prune
