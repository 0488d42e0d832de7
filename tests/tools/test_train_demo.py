"""Training of the demo checkpoint sees what the exported model will see, and goes on where it was stopped."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "train_demo"))
architecture = pytest.importorskip("architecture")
batches = pytest.importorskip("batches")
training = pytest.importorskip("training")

from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoProcessor, AutoTokenizer  # noqa: E402

from asap_export.checkpoint.sources import DEMO  # noqa: E402
from asap_export.scenes import scene  # noqa: E402

SMALL = batches.Stage("small", 4, 2, 84, 100, questions=4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    architecture.write_files(folder)
    return folder


@pytest.fixture(scope="module")
def writer(checkpoint: Path) -> Any:
    return batches.Writer(Tokenizer.from_file(str(checkpoint / "tokenizer.json")))


def test_the_demo_has_the_files_that_it_writes(checkpoint: Path) -> None:
    """All but what is learnt, the weights and the tokens, and the card, which is about them."""

    def settings(folder: Path, name: str) -> Any:
        text = (folder / name).read_text(encoding="utf-8")
        return {**json.loads(text), "model": None} if name == "tokenizer.json" else text

    written = {file.name for file in checkpoint.iterdir()}
    assert [name for name in sorted(written) if settings(DEMO, name) != settings(checkpoint, name)] == []
    assert {file.name for file in DEMO.iterdir()} - written == {"README.md", "curve.svg", "model.safetensors"}


@pytest.mark.parametrize("size", [(100, 84), (224, 131), (90, 223)])
def test_tiles_are_those_of_the_checkpoints_processor(checkpoint: Path, size: tuple[int, int]) -> None:
    image = scene("train", 1, size=size).image
    processor = AutoProcessor.from_pretrained(checkpoint).image_processor
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    found = batches.normalized(torch.from_numpy(batches.tiled(image).transpose(0, 3, 1, 2).copy()))
    assert np.abs(found.numpy() - expected).max() < 1e-5


def test_questions_are_written_as_the_chat_template_writes_them(checkpoint: Path, writer: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    for question in scene("train", 2).questions:
        asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}
        said = {"role": "assistant", "content": question.answer}
        text = tokenizer.apply_chat_template([asked, said], tokenize=False)
        ids, answer = writer.written(question)
        assert [*writer.prefix, *ids] == tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids[-answer:-1]) == f" {question.answer}"


def test_a_glance_shows_the_base_view_only(writer: Any) -> None:
    whole = batches.batch(7, (100, 84), SMALL, writer, kinds=batches.PLACES)
    glance = batches.glanced(whole)
    tiles = whole.tiles.view(SMALL.images, -1, *whole.tiles.shape[1:])
    assert torch.equal(glance.tiles, tiles[:, 0])
    each = whole.gather_index.view(SMALL.images, -1)[:, : batches.GEOMETRY.features]
    own = glance.gather_index.view(SMALL.images, -1)
    assert torch.equal(each - each[:, :1], own - own[:, :1])  # the base view's rows, in the same order
    asked = scene("train", 7, 16, kinds=batches.PLACES).questions
    assert {question.kind for question in asked} == set(batches.PLACES)


def test_many_questions_at_once_are_answered_as_each_alone(writer: Any) -> None:
    """The loss over all questions of an image is that of transformers' own model over one conversation each."""
    model = architecture.new_model(1).eval()
    trainee = training.Trainee(model, writer, "cpu")
    batch = batches.batch(7, (100, 84), SMALL, writer)
    with torch.no_grad():
        loss, _, _ = trainee.answered(trainee.rows(batch), batch)
    model.model.language_model.config._attn_implementation = "sdpa"
    losses, count = 0.0, 0
    tiles = batch.tiles.shape[0] // SMALL.images
    for number in range(SMALL.images):
        drawn = scene("train", 7 + number, SMALL.questions, (100, 84))
        visual = batch.gather_index.numel() // SMALL.images
        for question in drawn.questions:
            ids, answer = writer.written(question)
            place = writer.prefix.index(architecture.SPECIAL["<image>"])
            images = [architecture.SPECIAL["<image>"]] * visual
            row = torch.tensor([[*writer.prefix[:place], *images, *writer.prefix[place + 1 :], *ids]])
            with torch.no_grad():
                logits = model(
                    input_ids=row,
                    pixel_values=batches.normalized(batch.tiles[number * tiles : (number + 1) * tiles])[None],
                    image_sizes=torch.tensor([[84, 100]]),
                    attention_mask=torch.ones_like(row),
                ).logits[0, -answer - 1 : -1]
            losses += float(torch.nn.functional.cross_entropy(logits, row[0, -answer:], reduction="sum"))
            count += answer
    assert float(loss) == pytest.approx(losses / count, rel=2e-2)  # the biases of training are bfloat16's


def test_a_resumed_run_equals_an_uninterrupted_one(writer: Any, tmp_path: Path) -> None:
    def run(folder: Path, *lengths: int) -> dict[str, torch.Tensor]:
        folder.mkdir()
        for (
            steps
        ) in lengths:  # a shorter stage stands for a run that was stopped: the rate is the same all along
            trainee = training.Trainee(architecture.new_model(2), writer, "cpu")
            stage = batches.Stage("small", 4, 2, 84, 90, questions=2)
            training.train(trainee, [stage], folder, on_save=lambda: None, steps_to_save=2, stop_after=steps)
        return dict(trainee.model.named_parameters())

    once, twice = run(tmp_path / "once", 4), run(tmp_path / "twice", 2, 4)
    for name, parameter in once.items():
        assert torch.equal(parameter, twice[name]), name


def test_a_patch_is_labelled_by_what_covers_it() -> None:
    shown = np.zeros((2, 56, 56), dtype=np.uint8)
    shown[1, :7, :7] = 1  # one patch of the first grid tile, wholly
    shown[1, 7:14, :1] = 1  # a seventh of the patch below it: neither nothing nor enough
    attributes = np.array([(-1, -1, -1), (3, 6, 2)])
    labels = batches.patch_labels(shown, attributes)
    assert labels[1, 0].tolist() == [3, 6, 2]
    assert labels[1, 8].tolist() == [batches.IGNORED] * 3
    assert (labels[0] == -1).all()
