"""Prompts of the random checkpoint: as its bundle's reader reads them, and as transformers' processor does."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asap_export.bundle import Bundle
from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.errors import UserError
from asap_export.exporter import ExportRequest, export
from asap_export.model.anyres import TileGeometry, packing
from asap_export.parity.processor_reader import ProcessorReader
from asap_export.pruning.config import PruningConfig
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.prompt import BundleReader, PromptReader
from asap_export.runtime.template import Turn, WholeTemplate

DENSE = PruningConfig("none")
IMAGES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="module")
def checkpoint(random_checkpoint):
    return open_checkpoint(random_checkpoint)


@pytest.fixture(scope="module")
def reference(checkpoint) -> ProcessorReader:
    return ProcessorReader(checkpoint.folder, checkpoint.spec)


@pytest.fixture(scope="module", params=["bundle", "processor"])
def reader(request, reference, pruned_bundle) -> PromptReader:
    if request.param == "processor":
        return reference
    bundle = Bundle.open(pruned_bundle)
    return BundleReader(bundle, OnnxRuntimeSession(bundle.graph_path("preprocess"), "cpu", 1))


@pytest.fixture(scope="module")
def spelled(reference):
    def text(ids) -> str:
        """Tokens as text, special tokens included, with each run of image tokens as one mark."""
        image = reference.processor.image_token_id
        single = [token for place, token in enumerate(ids) if token != image or ids[place - 1] != image]
        return reference.tokenizer.decode(single)

    return text


def test_images_come_first_where_the_text_does_not_place_them(reader, spelled) -> None:
    prompt = reader.read("What is it?", [IMAGES / "mat.png"])
    assert spelled(prompt.input_ids) == "<s>USER: <image>\nWhat is it? ASSISTANT:"


def test_several_questions_about_one_image_are_read_as_if_alone(reader) -> None:
    texts = ["What is it?", "Is this <image> a cat, or a larger animal?", "Why?"]
    for text, prompt in zip(texts, reader.read_each(texts, IMAGES / "mat.png"), strict=True):
        alone = reader.read(text, [IMAGES / "mat.png"])
        np.testing.assert_array_equal(prompt.input_ids, alone.input_ids)
        np.testing.assert_array_equal(prompt.pixel_values, alone.pixel_values)
        assert prompt.image_sizes == alone.image_sizes


def test_marks_place_images(reader, spelled) -> None:
    prompt = reader.read("Is <image> like <image>?", [IMAGES / "mat.png", IMAGES / "sign.png"])
    assert spelled(prompt.input_ids) == "<s>USER: Is <image> like <image>? ASSISTANT:"


def test_without_the_template_the_text_is_taken_as_it_is(reader, spelled) -> None:
    prompt = reader.read("Q: <image> A:", [IMAGES / "sign.png"], template=False)
    assert spelled(prompt.input_ids) == "<s>Q: <image> A:"
    with pytest.raises(UserError, match=r"found 0 for 1 image; add or remove marks$"):
        reader.read("Q: A:", [IMAGES / "sign.png"], template=False)


def test_a_template_that_writes_the_first_token_gets_no_second_one(reader, spelled) -> None:
    prompt = reader.read("<s>Q: A:", template=False)
    assert spelled(prompt.input_ids) == "<s>Q: A:"


def test_there_are_as_many_image_tokens_and_tiles_as_the_packing_says(reader, checkpoint) -> None:
    sizes = [(30, 500), (144, 144), (57, 56)]
    images = [Image.new("RGB", (width, height)) for height, width in sizes]
    prompt = reader.read("Compare.", images)
    packed = packing(sizes, TileGeometry.of(checkpoint.spec))
    tile = checkpoint.spec.tile_size
    assert prompt.input_ids.tolist().count(checkpoint.spec.image_token_id) == len(packed.gather_index)
    assert prompt.pixel_values.shape == (sum(packed.tiles), 3, tile, tile)
    assert prompt.pixel_values.dtype == np.float32
    assert prompt.image_sizes == tuple(sizes)


def test_tiles_are_those_of_each_image_alone(reader) -> None:
    files = [IMAGES / "mat.png", IMAGES / "sign.png", IMAGES / "skyline.jpg"]
    alone = [reader.read("x", [file]).pixel_values for file in files]
    np.testing.assert_array_equal(reader.read("x", files).pixel_values, np.concatenate(alone))


@pytest.mark.parametrize(
    ("text", "images", "found"),
    [
        ("<image> and <image>", 1, "2 for 1 image;"),
        ("<image>", 0, "1 for 0 images;"),
        ("<image>", 2, "1 for 2"),
    ],
)
def test_marks_and_images_must_agree(reader, text: str, images: int, found: str) -> None:
    with pytest.raises(UserError, match=f"expected one <image> mark per image in the prompt, found {found}"):
        reader.read(text, [Image.new("RGB", (60, 60))] * images)


def test_a_later_turn_is_what_the_template_adds(reader, reference, spelled) -> None:
    history = [Turn("What is it?", 1, "A cat."), Turn("Sure?", 0, "Yes.")]
    cut_short = reference.tokenizer.convert_tokens_to_ids("a")
    prompt = reader.read_turn(history, "And this?", [IMAGES / "sign.png"], cut_short)
    assert spelled(prompt.input_ids) == "a</s>USER: <image>\nAnd this? ASSISTANT:"


def test_an_end_token_that_was_sampled_is_not_repeated(reader, checkpoint, spelled) -> None:
    [end] = checkpoint.spec.eos_token_ids
    prompt = reader.read_turn([Turn("What is it?", 0, "A cat.")], "Sure?", [], end)
    assert spelled(prompt.input_ids) == "</s>USER: Sure? ASSISTANT:"


def test_the_turns_together_are_the_conversation_that_transformers_renders(reader, reference) -> None:
    first = reader.read("What is it?")
    answer = reference.tokenizer(" A cat.</s>", add_special_tokens=False)["input_ids"]
    second = reader.read_turn([Turn("What is it?", 0, "A cat.")], "Sure?", [], answer[-1])
    whole = reference.processor.apply_chat_template(
        [
            {"role": "user", "content": [{"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
            {"role": "user", "content": [{"type": "text", "text": "Sure?"}]},
        ],
        add_generation_prompt=True,
    )
    ids = [*first.input_ids, *answer[:-1], *second.input_ids]
    assert ids == reference.tokenizer(whole)["input_ids"]


@pytest.mark.parametrize("last", ["</s>", "a"])
def test_a_bundles_reader_reads_what_transformers_reads(checkpoint, reference, pruned_bundle, last) -> None:
    bundle = Bundle.open(pruned_bundle)
    reader = BundleReader(bundle, OnnxRuntimeSession(bundle.graph_path("preprocess"), "cpu", 1))
    text, images = " Grüße,\n 猫 </s> <image>? ", [IMAGES / "mat.png"]
    token = reference.tokenizer.convert_tokens_to_ids(last)
    history = [Turn("What is it?", 1, "A cat.")]
    for read in (
        lambda one: one.read(text, images),
        lambda one: one.read(text, images, template=False),
        lambda one: one.read("<s> twice <s>", template=False),
        lambda one: one.read_turn(history, text, images, token),
    ):
        ours, theirs = read(reader), read(reference)
        assert ours.input_ids.tolist() == theirs.input_ids.tolist()
        assert ours.image_sizes == theirs.image_sizes
        np.testing.assert_allclose(ours.pixel_values, theirs.pixel_values, atol=0.02)


def test_a_template_that_forgets_answers_is_refused_for_later_turns(reader, reference, monkeypatch) -> None:
    forgetful = WholeTemplate(lambda messages, **_: messages[-1]["content"][-1]["text"], "<image>")
    monkeypatch.setattr(reader, "template", forgetful)
    with pytest.raises(UserError, match=r"found one that drops them"):
        reader.read_turn([Turn("What is it?", 0, "A cat.")], "Sure?", [], 5)
    monkeypatch.setattr(reader, "template", WholeTemplate(None, "<image>"))
    with pytest.raises(UserError, match=r"expected a chat template"):
        reader.read("What is it?")


def test_a_processor_that_counts_otherwise_is_refused(checkpoint) -> None:
    other = ProcessorReader(checkpoint.folder, checkpoint.spec)
    other.processor.num_additional_image_tokens = 0  # a checkpoint's most common fault
    with pytest.raises(UserError, match=r"visual tokens for images of 144 x 144 pixels.*do not fit"):
        other.read("What is it?", [IMAGES / "sign.png"])


def test_missing_processor_files_are_named(checkpoint, tmp_path: Path) -> None:
    shutil.copy(checkpoint.folder / "config.json", tmp_path)
    with pytest.raises(UserError, match=f"expected the processor's files in {tmp_path}"):
        ProcessorReader(tmp_path, checkpoint.spec)


def test_a_tokenizer_that_cannot_be_read_is_named(pruned_bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(pruned_bundle, tmp_path / "bundle")
    bundle = Bundle.open(folder)
    bundle.tokenizer_path.write_text("{}")
    with pytest.raises(UserError, match=f"expected a tokenizer in {bundle.tokenizer_path}, found: "):
        BundleReader(bundle, OnnxRuntimeSession(bundle.graph_path("preprocess"), "cpu", 1))


@pytest.mark.long
def test_a_template_that_is_not_in_parts_comes_with_the_bundle_in_jinja(
    random_checkpoint, tmp_path: Path
) -> None:
    source = shutil.copytree(random_checkpoint, tmp_path / "checkpoint")
    template = (source / "chat_template.jinja").read_text()
    (source / "chat_template.jinja").write_text("{{ strftime_now('%Y') }} " + template)
    bundle = export(ExportRequest(str(source), output=tmp_path / "bundle", pruning=DENSE)).bundle
    assert bundle.manifest.prompt.template is None and bundle.chat_template_path is not None
    reader = BundleReader(bundle, OnnxRuntimeSession(bundle.graph_path("preprocess"), "cpu", 1))
    reference = ProcessorReader(bundle.processor_path, bundle.manifest.model)
    history = [Turn("What is it?", 0, "A cat.")]
    assert reader.template.first("What?", 1) == reference.template.first("What?", 1)
    assert reader.template.first("What?", 1).startswith("20")
    ours, theirs = (one.read_turn(history, "Sure?", [], 1) for one in (reader, reference))
    assert ours.input_ids.tolist() == theirs.input_ids.tolist()


def test_long_prompts_pass_without_a_warning(reader, capfd: pytest.CaptureFixture[str]) -> None:
    prompt = reader.read("word " * 5000)
    assert len(prompt.input_ids) > 5000
    assert capfd.readouterr() == ("", "")
