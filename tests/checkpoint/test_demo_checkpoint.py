"""The built-in demo checkpoint: small, complete, and what its own files say it is."""

import math
import re

import pytest
from installed_command import IMAGES
from PIL import Image
from transformers import LlavaNextProcessor

from asap_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from asap_export.checkpoint.loading import load_processor
from asap_export.model.anyres import TileGeometry, packing

LARGEST = 25_000_000  # bytes of all its files: it is part of every checkout and every wheel


@pytest.fixture(scope="module")
def demo() -> Checkpoint:
    return open_checkpoint(None)


@pytest.fixture(scope="module")
def processor(demo: Checkpoint) -> LlavaNextProcessor:
    return load_processor(demo.folder, demo.spec)


def test_it_opens_and_has_the_real_architecture(demo):
    spec = demo.spec
    assert (demo.source, demo.revision) == ("demo", None)
    assert (spec.architecture, spec.text_model_type) == ("LlavaNextForConditionalGeneration", "llama")
    assert 8 <= spec.layers <= 12 and spec.kv_heads < spec.heads and spec.head_dim == 64
    assert spec.max_visual_tokens > 300 and spec.dtype == "fp16"


def test_it_is_small(demo):
    assert sum(file.stat().st_size for file in demo.folder.rglob("*") if file.is_file()) <= LARGEST


def test_its_card_is_about_it(demo):
    card = (demo.folder / "README.md").read_text(encoding="utf-8")
    millions = sum(math.prod(tensor.shape) for tensor in demo.tensors.values()) / 1e6
    assert f"{millions:.1f} M parameters" in card
    assert f"(up to {demo.spec.max_visual_tokens:,} visual tokens)" in card
    [total] = re.findall(r"\| \*\*all\*\* \| [\d,]+ \| ([\d.]+)% \|", card)
    assert float(total) >= 90, "below that, retention under pruning means nothing"
    linked = re.findall(r"!\[.*\]\((.+)\)", card)
    assert linked and all((demo.folder / name).is_file() for name in linked)


def test_text_survives_the_tokenizer(processor):
    text = "Größe 3 × 4 = 12, naïve 猫 on the mat?\n"
    ids = processor.tokenizer(text).input_ids
    assert ids[0] == processor.tokenizer.bos_token_id
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("name", ["mat.png", "skyline.jpg"])
def test_the_processor_counts_tiles_and_tokens_as_anyres_does(demo, processor, name):
    image = Image.open(IMAGES / name)
    inputs = processor(images=[image], text="USER: <image>\nWhat? ASSISTANT:", return_tensors="pt")
    ours = packing([(image.height, image.width)], TileGeometry.of(demo.spec))
    assert (inputs.input_ids == demo.spec.image_token_id).sum().item() == ours.visual_tokens[0]
    assert inputs.pixel_values.shape[:2] == (1, ours.tiles[0])
