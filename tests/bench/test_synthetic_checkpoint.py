"""Random checkpoints of public models' shapes: right for every preset and scale, written shard by shard."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some
from transformers import GenerationConfig

from asap_export.bench import synthetic
from asap_export.bench.synthetic import model_config, scaled_shape, scaled_vision, write_checkpoint
from asap_export.bundle.presets import presets
from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.checkpoint.config import read_config
from asap_export.checkpoint.loading import check_processor
from asap_export.checkpoint.sizes import model_spec
from asap_export.errors import UserError
from asap_export.pruning.flops import DecoderShape


@pytest.mark.parametrize("name", presets())
def test_the_configuration_has_the_preset_s_shape(tmp_path, name):
    preset = presets()[name]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(model_config(preset, None, "bf16")))
    config = read_config(file)
    spec = model_spec(config, GenerationConfig.from_model_config(config), "bf16")
    assert DecoderShape.of(spec) == preset.decoder
    assert spec.text_model_type == preset.text_model_type
    assert spec.max_visual_tokens == preset.max_visual_tokens
    assert spec.max_position_embeddings == preset.max_position_embeddings


def test_a_quarter_of_vicuna_7b_is_a_decoder_of_0_4_billion_weights_as_deep_as_the_whole():
    shape = scaled_shape(presets()["llava-v1.6-vicuna-7b"].decoder, 0.25)
    assert shape == DecoderShape(
        layers=32,
        hidden_size=1024,
        intermediate_size=2752,
        heads=8,
        kv_heads=8,
        head_dim=128,
        vocab_size=32064,
    )
    assert scaled_vision(0.25) == synthetic.VISION | {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_attention_heads": 4,
    }


@given(some.sampled_from(sorted(presets())), some.floats(0.001, 1))
def test_at_any_scale_heads_share_keys_as_before_and_no_block_is_half_full(name, scale):
    whole = presets()[name].decoder
    shape = scaled_shape(whole, scale)
    assert shape.heads * whole.kv_heads == shape.kv_heads * whole.heads
    assert shape.kv_heads >= 1 and shape.layers == whole.layers and shape.head_dim == whole.head_dim
    assert shape.hidden_size % 64 == shape.intermediate_size % 64 == 0 < shape.hidden_size
    vision = scaled_vision(scale)
    assert vision["hidden_size"] == 64 * vision["num_attention_heads"]


@pytest.mark.parametrize(("scale", "layers"), [(0, None), (1.5, None), (0.5, 0)])
def test_what_is_no_scale_or_depth_is_refused(scale, layers):
    with pytest.raises(UserError, match=r"^expected (scale in|layers of) "):
        scaled_shape(presets()["llava-v1.6-vicuna-7b"].decoder, scale, layers)


@pytest.mark.parametrize("name", ["llava-v1.6-mistral-7b", "llava-1.5-7b"])
def test_a_checkpoint_in_several_shards_opens_and_its_processor_fits(tmp_path, monkeypatch, name):
    small = DecoderShape(
        layers=2, hidden_size=64, intermediate_size=96, heads=2, kv_heads=1, head_dim=32, vocab_size=1024
    )
    preset = replace(presets()[name], decoder=small)
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    monkeypatch.setattr(synthetic, "VISION", synthetic.VISION | vision)
    monkeypatch.setattr(synthetic, "SHARD_BYTES", 200_000)
    write_checkpoint(tmp_path / "checkpoint", preset, "fp16", seed=1)

    checkpoint = open_checkpoint(tmp_path / "checkpoint")
    check_processor(checkpoint.folder, checkpoint.spec)
    assert len({place.file for place in checkpoint.tensors.values()}) > 1
    assert {place.dtype for place in checkpoint.tensors.values()} == {"fp16"}
