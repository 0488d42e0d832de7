"""A config.json read without transformers is what transformers reads in it."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_checkpoints import EVERY_MODEL, SmallModel, small_config

from asap_export.checkpoint.config import read_config
from asap_export.checkpoint.plain_config import read_plain_config
from asap_export.checkpoint.sizes import TEXT_MODELS, model_spec
from asap_export.checkpoint.sources import DEMO
from asap_export.errors import UserError

NEXT, LLAVA = {"model_type": "llava_next"}, {"model_type": "llava"}


def text(model_type: str, **settings: Any) -> dict[str, Any]:
    return NEXT | {"text_config": {"model_type": model_type, **settings}}


def written(folder: Path, content: dict[str, Any]) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(content))
    return file


def assert_the_same(file: Path) -> None:
    ours, theirs = read_plain_config(file), read_config(file)
    assert model_spec(ours, None, "fp16") == model_spec(theirs, None, "fp16")
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")


@pytest.mark.parametrize("model", EVERY_MODEL, ids=str)
def test_whole_configurations(model: SmallModel, tmp_path: Path) -> None:
    small_config(model).save_pretrained(tmp_path)
    assert_the_same(tmp_path / "config.json")


def test_the_demos_configuration() -> None:
    assert_the_same(DEMO / "config.json")


@pytest.mark.parametrize(
    "content",
    [
        NEXT,
        LLAVA,
        LLAVA | {"text_config": {}, "vision_config": {}},
        LLAVA | {"vision_config": {"image_size": 336, "patch_size": 14}, "torch_dtype": "bfloat16"},
        LLAVA | {"vision_feature_select_strategy": "full", "image_token_index": 7, "dtype": "float32"},
        text("llama", num_attention_heads=16, num_key_value_heads=None, head_dim=None),
        text("llama", eos_token_id=[5, 6], bos_token_id=None, rope_scaling={"type": "linear", "factor": 2.0}),
        text("llama", rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
             "high_freq_factor": 4.0, "original_max_position_embeddings": 1024}),
        text("mistral", sliding_window=None, max_position_embeddings=32768),
        text("mistral", max_position_embeddings=4096),
        text("qwen2"),
        text("qwen2", use_sliding_window=True, num_hidden_layers=28),
        text("qwen2", use_sliding_window=True, sliding_window=None),
        text("qwen2", use_sliding_window=True, layer_types=["full_attention"] * 32),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_left_out_is_transformers_default(content: dict[str, Any], tmp_path: Path) -> None:
    assert_the_same(written(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        {"model_type": "bert"},
        text("mistral"),  # whose window is shorter than its positions
        text("qwen2", use_sliding_window=True),
        text("gemma"),
        text("llama", rope_scaling={"type": "dynamic", "factor": 2.0}),
        NEXT | {"vision_config": {"model_type": "siglip_vision_model"}},
        NEXT | {"vision_feature_layer": 99},
        NEXT | {"vision_feature_select_strategy": "full"},
        NEXT | {"image_grid_pinpoints": []},
        NEXT | {"image_grid_pinpoints": [[100, 100]]},
        NEXT | {"quantization_config": {}},
    ],
    ids=str,
)
def test_what_cannot_be_exported_is_refused_in_the_same_words(
    content: dict[str, Any], tmp_path: Path
) -> None:
    file = written(tmp_path, content)
    said = []
    for read in (read_plain_config, read_config):
        with pytest.raises(UserError) as refusal:
            read(file)
        said.append(str(refusal.value))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    "content",
    [
        LLAVA | {"text_config": 3},
        LLAVA | {"vision_config": [1]},
        LLAVA | {"vision_feature_select_strategy": "some"},
        LLAVA | {"vision_config": {"image_size": "large"}},
        text("llama", hidden_size="wide"),
        text("llama", vocab_size=None),
        text("llama", hidden_size=100, num_attention_heads=3),
    ],
    ids=str,
)
def test_values_of_a_wrong_kind_are_refused(content: dict[str, Any], tmp_path: Path) -> None:
    file = written(tmp_path, content)
    for read in (read_plain_config, read_config):
        with pytest.raises(UserError, match=f"expected .*{file} to "):
            read(file)


def test_every_language_model_is_told_apart() -> None:
    assert {model.language.partition("-")[0].rstrip("3") for model in EVERY_MODEL} == set(TEXT_MODELS)
