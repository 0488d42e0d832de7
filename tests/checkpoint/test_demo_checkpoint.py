"""The built-in demo checkpoint: made by its script, to the byte, and lively enough to compare runtimes on."""

import importlib.util
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from asap_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from asap_export.checkpoint.loading import load_model, load_processor
from asap_export.model.anyres import TileGeometry, packing

ROOT = Path(__file__).resolve().parents[2]
IMAGES = sorted((ROOT / "examples" / "images").iterdir())


@pytest.fixture(scope="module")
def demo() -> Checkpoint:
    return open_checkpoint(None)


@pytest.fixture(scope="module")
def processor(demo: Checkpoint) -> LlavaNextProcessor:
    return load_processor(demo.folder)


@pytest.fixture(scope="module")
def model(demo: Checkpoint) -> LlavaNextForConditionalGeneration:
    return load_model(demo, "fp32")


def test_the_script_writes_the_committed_files_again(demo, tmp_path):
    script = ROOT / "tools" / "make_demo_checkpoint.py"
    spec = importlib.util.spec_from_file_location("make_demo_checkpoint", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_demo_checkpoint(tmp_path)
    written = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    committed = {file.name: file.read_bytes() for file in demo.folder.iterdir()}
    assert written.keys() == committed.keys()
    assert [name for name in written if written[name] != committed[name]] == []


def test_it_has_the_real_architecture(demo):
    spec = demo.spec
    assert (demo.source, demo.revision) == ("demo", None)
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


@pytest.mark.parametrize("file", IMAGES, ids=lambda file: file.name)
def test_the_processor_counts_tiles_and_tokens_as_anyres_does(demo, processor, file):
    image = Image.open(file)
    inputs = processor(images=[image], text="USER: <image>\nWhat? ASSISTANT:", return_tensors="pt")
    ours = packing([(image.height, image.width)], TileGeometry.of(demo.spec))
    assert inputs.image_sizes.tolist() == [[image.height, image.width]]
    assert (inputs.input_ids == demo.spec.image_token_id).sum().item() == ours.visual_tokens[0]
    assert inputs.pixel_values.shape[:2] == (1, ours.tiles[0])


@pytest.mark.parametrize("file", IMAGES, ids=lambda file: file.name)
def test_answers_are_decisions_not_ties(demo, processor, model, file):
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
