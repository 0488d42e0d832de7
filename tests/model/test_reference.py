"""With pruning off, the reference is transformers' own model; with pruning on, it is the method."""

import copy

import pytest
import torch
from PIL import Image
from random_checkpoint import GEOMETRY
from small_checkpoints import EVERY_MODEL, SmallModel, small_model, write_checkpoint
from transformers import AutoProcessor

from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.checkpoint.loading import load_model, load_processor
from asap_export.model.anyres import TileGeometry, packing
from asap_export.model.reference import PromptBatch, Reference
from asap_export.pruning.config import PruningConfig

IMAGES = "examples/images"


@pytest.fixture(scope="module")
def llava(random_checkpoint):
    return load_model(open_checkpoint(random_checkpoint), "fp32")


@pytest.fixture(scope="module")
def processor(random_checkpoint):
    processor = AutoProcessor.from_pretrained(random_checkpoint)
    processor.tokenizer.padding_side = "left"
    return processor


@pytest.fixture(scope="module")
def reference(llava):
    def build(**pruning):
        return Reference(copy.deepcopy(llava), PruningConfig(**pruning))

    return build


def inputs_of(processor, texts, image_names, geometry=GEOMETRY):
    """transformers' inputs, and the same as a PromptBatch."""
    images = [Image.open(f"{IMAGES}/{name}").convert("RGB") for name in image_names]
    inputs = processor(text=texts, images=images or None, return_tensors="pt", padding=True)
    if not images:
        return inputs, PromptBatch(inputs["input_ids"], inputs["attention_mask"])
    packed = packing([(image.height, image.width) for image in images], geometry)
    if not geometry.grid_pinpoints:  # LLaVA-1.5 has one tile per image
        inputs["pixel_values"] = inputs["pixel_values"][:, None]
    tiles = [pixels[:count] for pixels, count in zip(inputs["pixel_values"], packed.tiles, strict=True)]
    inputs["pixel_values"] = torch.cat(tiles)
    assert (inputs["input_ids"] == processor.image_token_id).sum() == sum(packed.visual_tokens)
    gather_index = torch.from_numpy(packed.gather_index)
    return inputs, PromptBatch(inputs["input_ids"], inputs["attention_mask"], torch.cat(tiles), gather_index)


CASES = {
    "one image": (["USER: <image>\nWhat is on the mat? ASSISTANT:"], ["mat.png"]),
    "several images": (
        ["USER: <image> <image>\nWhich is higher? <image> ASSISTANT:"],
        ["tower.png", "skyline.jpg", "sign.png"],
    ),
    "no image": (["USER: How are you? ASSISTANT:"], []),
    "a batch": (
        [
            "USER: <image>\nWhat? ASSISTANT:",
            "USER: Hello ASSISTANT:",
            "USER: <image> <image>\nWhy? ASSISTANT:",
        ],
        ["mat.png", "sign.png", "tower.png"],
    ),
}


@pytest.mark.parametrize("texts, images", CASES.values(), ids=CASES.keys())
def test_without_pruning_it_is_transformers_model(llava, processor, reference, texts, images):
    inputs, prompt = inputs_of(processor, texts, images)
    expected = llava.generate(
        **inputs, max_new_tokens=12, do_sample=False, output_logits=True, return_dict_in_generate=True
    )

    found = reference(method="none").generate(
        prompt, keep=0, max_new_tokens=12, eos_token_ids=(processor.tokenizer.eos_token_id,)
    )

    new = expected.sequences[:, inputs["input_ids"].shape[1] :]
    assert torch.equal(found.tokens, new)
    for ours, theirs in zip(found.logits, expected.logits, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def small_folders(tmp_path_factory):
    """A checkpoint for each way to preprocess images: their language models and weights are of no interest."""
    ways = {("llava", False): "penultimate", ("llava", True): "class-token", ("llava_next", False): "first"}
    base = tmp_path_factory.mktemp("small")
    return {
        way: write_checkpoint(base / vision, SmallModel(way[0], vision=vision))
        for way, vision in ways.items()
    }


@pytest.mark.parametrize("model", EVERY_MODEL, ids=str)
def test_every_backbone_without_pruning_is_transformers_model(small_folders, model):
    folder = small_folders[model.architecture, "class-token" in model.vision]
    processor = load_processor(folder, open_checkpoint(folder).spec)
    processor.tokenizer.padding_side = "left"
    llava = small_model(model)
    geometry = TileGeometry.of(open_checkpoint(folder).spec)
    inputs, prompt = inputs_of(processor, *CASES["a batch"], geometry)
    with torch.no_grad():
        expected = llava(**inputs).logits[:, -1]

    output, _ = Reference(llava, PruningConfig(method="none")).prefill(prompt, keep=0)

    torch.testing.assert_close(output.logits[:, 0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pruning", [{}, {"method": "fastv"}, {"method": "random"}, {"trim_early_kv": False}])
def test_every_sequence_of_a_batch_is_pruned_as_if_alone(processor, reference, pruning):
    texts = ["USER: <image>\nWhat is it? ASSISTANT:", "USER: <image>\nAnd what is here? ASSISTANT:"]
    model = reference(**pruning)
    prompt = inputs_of(processor, texts, ["mat.png", "tower.png"])[1]
    together = model.generate(prompt, 30, 6)
    text = (prompt.attention_mask.bool() & (prompt.input_ids != processor.image_token_id)).sum(dim=1)
    for row, name in enumerate(["mat.png", "tower.png"]):
        if pruning.get("method") == "random":  # chance knows places in a batch, not sequences
            continue
        keep = 30 + int(text.max() - text[row])  # less text leaves room for more visual tokens
        alone = model.generate(inputs_of(processor, [texts[row]], [name])[1], keep, 6)
        torch.testing.assert_close(together.logits[0][row], alone.logits[0][0], rtol=1e-4, atol=1e-4)
        assert torch.equal(together.tokens[row], alone.tokens[0])


@pytest.fixture(scope="module")
def batch_that_differs(processor):
    """Rows with two images, one, and none."""
    texts, images = CASES["a batch"]
    return inputs_of(processor, [texts[2], texts[0], texts[1]], [images[1], images[2], images[0]])[1]


def logits_of_turns(model, prompt, keep):
    """Of a prompt, of the same as a later turn, and of a step behind both."""
    first, state = model.prefill(prompt, keep)
    later, state = model.prefill(prompt, keep, state)
    return first.logits, later.logits, model.step(torch.full((3, 1), 7), state)[0].logits


@pytest.fixture(scope="module")
def dense_logits(reference, batch_that_differs):
    return logits_of_turns(reference(method="none"), batch_that_differs, 1)


@pytest.mark.parametrize(
    "pruning",
    [{}, {"score": "received"}, {"score": "text"}, {"score": "salience"}, {"trim_early_kv": False}],
    ids=str,
)
def test_a_row_that_loses_no_visual_token_is_the_dense_model_s(
    processor, reference, batch_that_differs, dense_logits, pruning
):
    """Among all that merges, a token too many would be seen."""
    model = reference(threshold=-1.0, **pruning)
    visual = (batch_that_differs.input_ids == processor.image_token_id).sum(dim=1)
    for keep, lost in ((int(visual[0]), 0), (int(visual[0]) - 1, 1)):
        found = logits_of_turns(model, batch_that_differs, keep)
        for logits, expected in zip(found, dense_logits, strict=True):
            torch.testing.assert_close(logits[lost:], expected[lost:], rtol=1e-5, atol=1e-5)
        for logits, expected in zip(found[:2], dense_logits[:2], strict=True):
            assert not lost or not torch.allclose(logits[:lost], expected[:lost], atol=1e-3)


def test_the_cache_is_short_after_the_cut_and_positions_go_on(processor, reference):
    _, prompt = inputs_of(processor, *CASES["one image"])
    tokens = prompt.input_ids.shape[1]
    visual = int((prompt.input_ids == processor.image_token_id).sum())

    output, context = reference().prefill(prompt, keep=40)
    assert {key.shape[2] for key, _ in output.present} == {tokens - visual + 40}
    assert context.position.item() == tokens  # not the cache's length

    untrimmed, _ = reference(trim_early_kv=False).prefill(prompt, keep=40)
    assert [key.shape[2] for key, _ in untrimmed.present[:3]] == [tokens, tokens, tokens - visual + 40]
    torch.testing.assert_close(untrimmed.logits, output.logits)


def test_the_methods_choose_differently(processor, reference):
    _, prompt = inputs_of(processor, *CASES["one image"])
    kept = {
        method: reference(method=method).prefill(prompt, keep=40)[0].kept_index
        for method in ("asap", "fastv", "random")
    }
    assert not torch.equal(kept["asap"], kept["fastv"])
    assert not torch.equal(kept["fastv"], kept["random"])


def test_without_its_mask_and_merging_asap_by_the_last_row_is_fastv(processor, reference):
    _, prompt = inputs_of(processor, *CASES["one image"])
    bare = reference(score="last", merge=False, bidirectional=False).prefill(prompt, keep=40)[0]
    fastv = reference(method="fastv").prefill(prompt, keep=40)[0]
    assert torch.equal(bare.kept_index, fastv.kept_index) and torch.equal(bare.logits, fastv.logits)
    merged = reference(score="last", bidirectional=False, threshold=0.3).prefill(prompt, keep=40)[0]
    assert not torch.equal(merged.logits, fastv.logits)


def test_sampling_is_reproducible_and_a_narrow_nucleus_is_greedy(processor, reference):
    _, prompt = inputs_of(processor, *CASES["no image"])
    model = reference()
    greedy = model.generate(prompt, 1, 8).tokens
    assert torch.equal(model.generate(prompt, 1, 8, temperature=1.0, top_p=1e-6).tokens, greedy)
    warm = [model.generate(prompt, 1, 8, temperature=2.0, seed=seed).tokens for seed in (5, 5, 6)]
    assert torch.equal(warm[0], warm[1])
    assert not torch.equal(warm[0], warm[2])
