"""What is no checkpoint, none that can be exported, or a damaged one: one line that says so."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_checkpoints import SmallModel, write_checkpoint
from tiny_checkpoints import tiny_config, tiny_model

from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.checkpoint.json_file import read_object
from asap_export.checkpoint.loading import check_processor, load_processor
from asap_export.errors import UserError


def refusal(source: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        open_checkpoint(source)
    message = str(caught.value)
    assert "\n" not in message and message.startswith("expected ") and "found" in message
    return message


def change_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_no_such_folder(tmp_path):
    assert "no folder" in refusal(tmp_path / "nowhere")
    assert "no folder" in refusal(str(tmp_path / "nowhere"))
    assert "no folder nowhere" in refusal("nowhere")


def test_a_file(folder):
    assert "found the file" in refusal(folder / "config.json")


def test_a_folder_that_is_no_checkpoint(tmp_path):
    assert "found no config.json there" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "expected JSON" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    assert "expected a JSON object" in refusal(tmp_path)


def test_damaged_generation_settings(folder):
    (folder / "generation_config.json").write_text("{")
    assert "expected JSON in" in refusal(folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": "</s>"}')
    assert "expected eos_token_id of" in refusal(folder)
    (folder / "generation_config.json").write_text('{"early_stopping": "perhaps"}')
    assert "expected generation settings" in refusal(folder)


def test_the_hub_out_of_reach(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = refusal("nobody-here/no-such-model")
    assert "nobody-here/no-such-model" in message and "give a local folder" in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "found LlamaForCausalLM"),
        ({"architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava"}, "found LlavaLlamaForCausalLM"),
        ({"architectures": None, "model_type": "llava_onevision"}, "found model type llava_onevision"),
        ({"text_config": {"model_type": "gemma"}}, "found gemma and clip_vision_model"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "found llama and siglip_vision_model"),
    ],
)
def test_another_architecture_names_the_supported_ones(changes, said, folder):
    change_config(folder, lambda config: config.update(changes))
    message = refusal(folder)
    assert said in message
    assert (
        "LlavaNextForConditionalGeneration (language model llama, mistral, qwen2; vision tower CLIP)"
        in message
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda config: config.update(vision_feature_select_strategy="full"), "config.json, found full"),
        (
            lambda config: config.update(vision_feature_select_strategy="odd"),
            "to describe a LlavaNextForConditionalGeneration",
        ),
        (lambda config: config.update(vision_feature_layer=3), "-3 to 2, found [3]"),
        (lambda config: config.update(vision_feature_layer=[1, -4]), "-3 to 2, found [1, -4]"),
        (lambda config: config.update(vision_feature_layer=[]), "-3 to 2, found []"),
        (lambda config: config.update(image_grid_pinpoints=[[28, 30]]), "28-pixel tile, found [28, 30]"),
        (lambda config: config.update(image_grid_pinpoints=[]), "28-pixel tile, found none"),
        (lambda config: config.update(quantization_config={"bits": 4}), "expected unquantized weights"),
        (
            lambda config: config["text_config"].update(
                rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
            ),
            "found rope type dynamic",
        ),
        (
            lambda config: config["text_config"].update(hidden_size="wide"),
            "config.json to be int, found 'wide'; mend it there",
        ),
    ],
)
def test_what_the_graphs_cannot_hold(change, said, folder):
    change_config(folder, change)
    assert said in refusal(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda config: config.update(architectures=5), "expected architectures of"),
        (lambda config: config.update(text_config=[]), "expected text_config of"),
        (lambda config: config.update(image_grid_pinpoints=[[28, 56]] * 112_000), "length <= 256"),
        (lambda config: config.update(image_grid_pinpoints=[[28, "56"]]), "image_grid_pinpoints[0][1] of"),
        (lambda config: config["text_config"].update(num_hidden_layers=10**6), "int <= 4096, found 1000000"),
        (lambda config: config["text_config"].update(vocab_size=10**30), "int <= 2147483647, found 1000"),
        (lambda config: config["text_config"].update(hidden_act="odd"), "cannot make it: KeyError: 'odd'"),
        (lambda config: config["text_config"].update(rope_parameters=["default"]), "rope_parameters of"),
        (lambda config: config["vision_config"].update(patch_size=None), "to be int, found None"),
        (lambda config: config["vision_config"].update(layer_norm_eps=-1.0), "found -1.0; mend it there"),
    ],
)
def test_fields_of_another_type_or_out_of_bounds(change, said, folder):
    change_config(folder, change)
    assert said in refusal(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "maximum recursion depth exceeded"),
        (b'{"a": NaN}', "the number NaN"),
        (b'{"a": 1e999}', "the number 1e999"),
        (b'{"a": 1, "a": 1}', "the name 'a' twice in one object"),
        (b'\xef\xbb\xbf{"a": 1}', "Unexpected UTF-8 BOM"),
        ('{"a": 1}'.encode("utf-16"), "can't decode byte 0xff"),
        (b'{"a": "' + b"x" * (64 << 20) + b'"}', "at most 67,108,864 bytes"),
    ],
    ids=["deep", "NaN", "infinite", "twice", "BOM", "UTF-16", "large"],
)
def test_what_is_no_json_in_any_small_file(content, said, tmp_path):
    for name in ("config.json", "tokenizer.json", "special_tokens_map.json"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}, found.*") as caught:
            read_object(tmp_path / name)
        assert said in str(caught.value)


NAMES = ("config.json", "tokenizer.json", "chat_template.jinja", "model-00001-of-00002.safetensors", "odd")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", NAMES)
def test_pipes_and_devices_are_not_read(name, folder):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert f"found a pipe or a device: {name}; remove it" in refusal(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    assert f"found a pipe or a device: {name}; remove it" in refusal(folder)


@pytest.mark.timeout(20)
def test_a_pipe_as_a_small_file_alone(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(UserError, match=r"found a pipe or a device; give a file"):
        read_object(tmp_path / "config.json")


def test_a_damaged_tokenizer_is_named(tmp_path):
    folder = write_checkpoint(tmp_path / "small")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"] = 5
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"expected a tokenizer in {folder}/tokenizer.json, found: "):
        load_processor(folder, open_checkpoint(folder).spec)


def test_a_sliding_window_below_the_positions(tmp_path):
    tiny_model("mistral", text={"sliding_window": 100}).save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "found sliding_window 100" in message and "set max_position_embeddings to 100" in message
    change_config(tmp_path, lambda config: config["text_config"].update(max_position_embeddings=100))
    assert open_checkpoint(tmp_path).spec.max_position_embeddings == 100
    tiny_model("mistral", text={"sliding_window": 256}).save_pretrained(tmp_path)
    assert open_checkpoint(tmp_path).spec.text_model_type == "mistral"


def test_a_sliding_window_of_qwen2_counts_where_a_layer_has_it(tmp_path):
    window = {"use_sliding_window": True, "sliding_window": 100}
    tiny_model("qwen2", text={**window, "max_window_layers": 1}).save_pretrained(tmp_path)
    assert "found sliding_window 100" in refusal(tmp_path)
    tiny_model("qwen2", text={**window, "max_window_layers": 2}).save_pretrained(tmp_path)
    assert open_checkpoint(tmp_path).spec.layers == 2


def test_a_missing_shard(folder):
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert f"expected the shard {shard}, found no such file" in refusal(folder)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_truncated_shard(size, folder):
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:size])
    message = refusal(folder)
    assert str(shard) in message and "truncated" in message


def test_a_shard_with_bytes_added_or_replaced(folder):
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content + b"\0")
    assert f"({len(content) + 1:,} bytes)" in refusal(folder)
    shard.write_bytes(content[:8] + b"x" * (len(content) - 8))
    assert "invalid JSON in header" in refusal(folder)


def test_a_damaged_index(folder):
    index = folder / "model.safetensors.index.json"
    index.write_text("{}")
    assert "expected a weight_map" in refusal(folder)
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    assert "expected plain file names" in refusal(folder)


def test_no_weights_at_all_and_weights_of_another_format(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    change_config(tmp_path, lambda config: config.update(architectures=["LlavaNextForConditionalGeneration"]))
    assert "expected the shard" in refusal(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    message = refusal(tmp_path)
    assert "found pytorch_model.bin" in message and "convert" in message


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_missing_and_misshapen_weights_are_named(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    newline = next(name for name in load_file(tmp_path / "model.safetensors") if "newline" in name)
    rewrite(tmp_path, lambda weights: weights.update({newline: torch.zeros(17)}))
    assert "model.image_newline of shape [16] as config.json says, found [17]" in refusal(tmp_path)
    rewrite(tmp_path, lambda weights: weights.pop(newline))
    assert "found no model.image_newline" in refusal(tmp_path)


def test_quantized_weights(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    newline = next(name for name in load_file(tmp_path / "model.safetensors") if "newline" in name)
    rewrite(tmp_path, lambda weights: weights.update({newline: weights[newline].to(torch.int8)}))
    assert "expected model.image_newline in floating point, found I8 in " in refusal(tmp_path)


def test_a_folder_without_processor_files(folder):
    with pytest.raises(UserError, match="expected the processor's files"):
        load_processor(folder, open_checkpoint(folder).spec)


@pytest.mark.parametrize("architecture", ["llava", "llava_next"])
@pytest.mark.parametrize(
    ("file", "change", "found"),
    [
        # what checkpoints of before transformers 4.48 lack: the class token is subtracted but was never counted
        ("processor_config.json", {"num_additional_image_tokens": 0}, "found .* in tiles of 56 x 56"),
        ("processor_config.json", {"vision_feature_select_strategy": "full"}, "found .* in tiles of 56 x 56"),
        ("processor_config.json", {"patch_size": 8}, "found .* in tiles of 56 x 56"),
        (
            "preprocessor_config.json",
            {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}},
            "in tiles of 28 x 28",
        ),
        ("processor_config.json", {"image_token": "<pad>"}, "found 0 in tiles"),
    ],
)
def test_a_processor_that_does_not_fit_the_model(architecture, file, change, found, tmp_path):
    folder = write_checkpoint(tmp_path / "small", SmallModel(architecture))
    spec = open_checkpoint(folder).spec
    check_processor(folder, spec)
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    with pytest.raises(UserError, match=f"expected .* image tokens .* {found}"):
        check_processor(folder, spec)


def test_a_processor_that_takes_no_image(tmp_path):
    folder = write_checkpoint(tmp_path / "small", SmallModel("llava_next"))
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["image_processor_type"] = "CLIPImageProcessor"
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"expected a processor in .* that takes an image"):
        check_processor(folder, open_checkpoint(folder).spec)
