"""The random checkpoint of the tests: the same each time, and lively enough to compare runtimes on."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from installed_command import IMAGES
from PIL import Image
from random_checkpoint import write_random_checkpoint
from safetensors.numpy import load_file
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from asap_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from asap_export.checkpoint.loading import load_model, load_processor
from asap_export.model.anyres import TileGeometry, packing

FILES = sorted(IMAGES.iterdir())


@pytest.fixture(scope="module")
def checkpoint(random_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(random_checkpoint)


@pytest.fixture(scope="module")
def processor(checkpoint: Checkpoint) -> LlavaNextProcessor:
    return load_processor(checkpoint.folder, checkpoint.spec)


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> LlavaNextForConditionalGeneration:
    return load_model(checkpoint, "fp32")


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("model.safetensors", "8b34d88b4c430928bf2a040b6e3ace1201b20bb6ee142ae5b2c7a167ca928aca"),
        ("tokenizer.json", "f8f83dc2fd970ed05cd4cba2560bea2c4805193859e8f4de3b9c725cae492dbd"),
    ],
)
def test_the_same_files_come_out_each_time(checkpoint, name, digest):
    assert sha256((checkpoint.folder / name).read_bytes()).hexdigest() == digest


def test_a_short_one_has_the_first_layers(checkpoint, tmp_path):
    short = open_checkpoint(write_random_checkpoint(tmp_path / "short", layers=3))
    assert (short.spec.layers, checkpoint.spec.layers) == (3, 8)
    whole = load_file(checkpoint.folder / "model.safetensors")
    for name, weight in load_file(short.folder / "model.safetensors").items():
        np.testing.assert_array_equal(weight, whole[name], err_msg=name)


def test_it_has_the_real_architecture(checkpoint):
    spec = checkpoint.spec
    assert (spec.text_model_type, spec.layers, spec.heads, spec.kv_heads, spec.head_dim) == (
        "llama",
        8,
        4,
        2,
        64,
    )
    assert (spec.max_visual_tokens, spec.dtype, spec.eos_token_ids) == (336, "fp16", (1,))


@pytest.mark.parametrize("texts", [1, 2])
def test_a_chat_keeps_earlier_turns_as_they_were(processor, texts):
    first = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}
    chat = [first]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert prompt == "USER: <image>\nWhat is this? ASSISTANT:"
    chat.append({"role": "assistant", "content": [{"type": "text", "text": "A cat."}] * texts})
    chat.append({"role": "user", "content": "And its colour?"})
    later = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert later == prompt + " " + "A cat." * texts + "</s>USER: And its colour? ASSISTANT:"


def test_text_survives_the_tokenizer(processor):
    text = "Größe 3 × 4 = 12, naïve 猫 on the mat?\n"
    ids = processor.tokenizer(text).input_ids
    assert ids[0] == processor.tokenizer.bos_token_id
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_processor_counts_tiles_and_tokens_as_anyres_does(checkpoint, processor, file):
    image = Image.open(file)
    inputs = processor(images=[image], text="USER: <image>\nWhat? ASSISTANT:", return_tensors="pt")
    ours = packing([(image.height, image.width)], TileGeometry.of(checkpoint.spec))
    assert inputs.image_sizes.tolist() == [[image.height, image.width]]
    assert (inputs.input_ids == checkpoint.spec.image_token_id).sum().item() == ours.visual_tokens[0]
    assert inputs.pixel_values.shape[:2] == (1, ours.tiles[0])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_answers_are_decisions_not_ties(checkpoint, processor, model, file):
    prompt = "USER: <image>\nWhat can you see in this image? ASSISTANT:"
    inputs = processor(images=[Image.open(file)], text=prompt, return_tensors="pt")
    answer = model.generate(
        **inputs, max_new_tokens=16, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    assert answer.sequences.shape[1] == inputs.input_ids.shape[1] + 16  # no early end
    logits = torch.cat(answer.logits)
    best, second = logits.topk(2).values.T
    assert 2 < logits.std() < 4
    assert (best - second).median() > 0.1
