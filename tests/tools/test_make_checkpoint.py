"""Random checkpoints of public models' shapes: right for every preset, and written shard by shard."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import GenerationConfig

from asap_export.bundle.presets import presets
from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.checkpoint.loading import check_processor
from asap_export.checkpoint.sizes import model_spec, read_config
from asap_export.pruning.flops import DecoderShape

TOOL = Path(__file__).parents[2] / "tools" / "make_checkpoint.py"


@pytest.fixture(scope="module")
def tool():
    found = importlib.util.spec_from_file_location("make_checkpoint", TOOL)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", presets())
def test_the_configuration_has_the_preset_s_shape(tool, tmp_path, name):
    preset = presets()[name]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(tool.model_config(preset, None, "bf16")))
    config = read_config(file)
    spec = model_spec(config, GenerationConfig.from_model_config(config), "bf16")
    assert DecoderShape.of(spec) == preset.decoder
    assert spec.text_model_type == preset.text_model_type
    assert spec.max_visual_tokens == preset.max_visual_tokens
    assert spec.max_position_embeddings == preset.max_position_embeddings


@pytest.mark.parametrize("name", ["llava-v1.6-mistral-7b", "llava-1.5-7b"])
def test_a_checkpoint_in_several_shards_opens_and_its_processor_fits(tool, tmp_path, monkeypatch, name):
    small = DecoderShape(
        layers=2, hidden_size=64, intermediate_size=96, heads=2, kv_heads=1, head_dim=32, vocab_size=1024
    )
    preset = replace(presets()[name], decoder=small)
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    monkeypatch.setattr(tool, "VISION", tool.VISION | vision)
    monkeypatch.setattr(tool, "SHARD_BYTES", 200_000)
    tool.write_checkpoint(tmp_path / "checkpoint", preset, layers=None, dtype="fp16", seed=1)

    checkpoint = open_checkpoint(tmp_path / "checkpoint")
    check_processor(checkpoint.folder, checkpoint.spec)
    assert len({place.file for place in checkpoint.tensors.values()}) > 1
    assert {place.dtype for place in checkpoint.tensors.values()} == {"fp16"}
