"""Checkpoints as public ones are: what transformers takes, an export takes, and says what it passed over."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command import refused, run
from installed_command import IMAGES
from safetensors.torch import load_file, save_file
from small_checkpoints import write_checkpoint

from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.errors import UserError
from asap_export.exporter import ExportPlan, ExportRequest, plan_export
from asap_export.parity.processor_reader import ProcessorReader

TOWER = "vision_tower.vision_model.embeddings.position_ids"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "small", dtype="fp16")


def change(file: Path, changed: Callable[[dict[str, object]], object]) -> None:
    """Change an object of JSON in place."""
    content = json.loads(file.read_text()) if file.exists() else {}
    changed(content)
    file.write_text(json.dumps(content))


def change_weights(folder: Path, changed: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of the first shard; its index, which lists others, stays as it is."""
    file = min(folder.glob("model-*.safetensors"))
    weights = load_file(file)
    changed(weights)
    save_file(weights, file)


def template_among_the_tokenizers_settings(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    change(folder / "tokenizer_config.json", lambda settings: settings.update(chat_template=template))


def without_tower_settings(folder: Path) -> None:
    for name in ("patch_size", "vision_feature_select_strategy"):
        change(folder / "processor_config.json", lambda settings, name=name: settings.pop(name))


def with_a_word_beyond(folder: Path) -> None:
    """A token that the tokenizer has and the embedding has not."""
    rows = json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"]
    word = {"id": rows, "content": "<beyond>", "special": False, "normalized": False, "single_word": False}
    change(
        folder / "tokenizer.json",
        lambda settings: settings["added_tokens"].append(word | {"lstrip": False, "rstrip": False}),
    )


def plan(folder: Path) -> ExportPlan:
    return plan_export(ExportRequest(str(folder), output=folder.parent / "out"))


def without_what_nothing_reads(folder: Path) -> None:
    """The norm behind the vision tower and its last layer, which lies above the features that are used."""
    for file in folder.glob("model-*.safetensors"):
        kept = {
            n: w
            for n, w in load_file(file).items()
            if not re.search(r"post_layernorm|encoder\.layers\.2\.", n)
        }
        save_file(kept, file)


def test_weights_that_nothing_reads_may_be_missing(folder: Path) -> None:
    without_what_nothing_reads(folder)
    assert (
        plan(folder).missing["absent"].startswith("weights that nothing reads and the checkpoint has not: ")
    )
    change(folder / "config.json", lambda config: config.update(vision_feature_layer=-1))
    with pytest.raises(UserError, match=r"found no model\.vision_tower\.encoder\.layers\.2\."):
        open_checkpoint(folder)


def test_stored_positions_in_integers_are_passed_over(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.update({TOWER: torch.arange(5)}))
    assert open_checkpoint(folder).ignored == ()  # a constant that the model computes


def test_tensors_of_no_model_are_named(folder: Path) -> None:
    extra = {f"teacher.{number}": torch.zeros(2, dtype=torch.int8) for number in range(5)}
    change_weights(folder, lambda weights: weights.update(extra))
    assert plan(folder).missing["ignored"] == (
        "stored tensors that the model has not: teacher.0, teacher.1, teacher.2 and 2 more"
    )


def test_weights_of_double_precision_count_as_single(folder: Path) -> None:
    for file in folder.glob("model-*.safetensors"):
        save_file({name: weight.double() for name, weight in load_file(file).items()}, file)
    checkpoint = open_checkpoint(folder)
    assert {place.dtype for place in checkpoint.tensors.values()} == {"fp64"}
    assert checkpoint.spec.dtype == "fp32"


def test_what_config_json_knows_is_taken_from_there(folder: Path) -> None:
    without_tower_settings(folder)
    assert plan(folder).missing["processor"] == (
        "its files do not say patch_size and vision_feature_select_strategy; taken from config.json"
    )


def test_a_template_among_the_tokenizers_settings_is_the_template(folder: Path) -> None:
    expected = plan(folder).prompt.template
    template_among_the_tokenizers_settings(folder)
    assert expected is not None and plan(folder).prompt.template == expected


@pytest.mark.parametrize(("written", "marks"), [("", 0), ("<image><image>", 2)])
def test_a_template_with_another_number_of_images_is_named_and_refused(
    folder: Path, written: str, marks: int
) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}"
        f"{{% else %}}{written}{{% endif %}}{{% endfor %}} {{% endfor %}}"
    )
    assert plan(folder).missing["images"].startswith(f"the chat template writes {marks} marks for an image")
    reader = ProcessorReader(folder, open_checkpoint(folder).spec)
    with pytest.raises(UserError, match=f"one <image> mark per image, found {marks} for 1 image; put marks"):
        reader.read("What?", [IMAGES / "mat.png"])
    assert reader.read("What is it? <image> Say.", [IMAGES / "mat.png"]).input_ids.size


def test_words_without_an_embedding_are_named(folder: Path) -> None:
    with_a_word_beyond(folder)
    assert plan(folder).missing["tokens"].endswith("which have no embedding: <beyond>")


def test_an_adapter_is_no_model(tmp_path: Path, folder: Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="found a LoRA adapter; merge it into its base model first"):
        open_checkpoint(folder)


def test_a_tokenizer_that_cannot_be_loaded_says_why_in_full(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    said = refused("--model", folder, "--output", folder.parent / "out")
    assert f"expected the processor's files in {folder}, found: " in said and not said.endswith(":")


@pytest.mark.long
def test_all_of_it_at_once_is_exported_verified_and_asked(folder: Path, tmp_path: Path) -> None:
    """Also an image token without a row in the embedding, as public checkpoints have it."""
    rows = json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"]
    change_weights(folder, lambda weights: weights.update({n: w.double() for n, w in weights.items()}))
    change_weights(folder, lambda weights: weights.update({TOWER: torch.arange(5), "t": torch.ones(1)}))
    template_among_the_tokenizers_settings(folder)
    without_tower_settings(folder)
    without_what_nothing_reads(folder)
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    image = next(token["id"] for token in tokens if token["content"] == "<image>")
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(
        text.replace(f'"id": {image},', f'"id": {rows},').replace(f'"<image>": {image}', f'"<image>": {rows}')
    )
    change(folder / "config.json", lambda config: config.update(image_token_index=rows))
    bundle = tmp_path / "out.bundle"
    run("--model", folder, "--output", bundle, "--dtype", "fp32")
    assert "PASS" in run("verify", bundle, "--image", IMAGES / "mat.png").stdout
    answer = run("run", bundle, "--image", IMAGES / "mat.png", "--prompt", "What?", "--json").stdout
    assert json.loads(answer)["visual_tokens"] > 0
