"""What open_checkpoint finds in checkpoints of several forms."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_checkpoints import (
    ARCHITECTURES,
    LANGUAGE_MODELS,
    NAMES,
    SmallModel,
    old_name,
    small_model,
    write_checkpoint,
)
from tiny_checkpoints import tiny_model

from asap_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from asap_export.checkpoint.loading import TORCH_DTYPES, load_model
from asap_export.checkpoint.shards import TensorPlace
from asap_export.errors import UserError
from asap_export.spec import ModelSpec

NUMPY_DTYPES = {"fp32": np.float32, "fp16": np.float16}


def stored(place: TensorPlace) -> np.ndarray:
    """Read a tensor by its place alone, as a graph's external data does."""
    data = np.fromfile(place.file, dtype=np.uint8, count=place.nbytes, offset=place.offset)
    return data.view(NUMPY_DTYPES[place.dtype]).reshape(place.shape)


def assert_places_hold(checkpoint: Checkpoint, weights: dict[str, torch.Tensor]) -> None:
    assert list(checkpoint.tensors) == list(weights)
    for name, weight in weights.items():
        np.testing.assert_array_equal(stored(checkpoint.tensors[name]), weight.numpy(), err_msg=name)


@pytest.mark.parametrize("text_model", ["llama", "mistral", "qwen2"])
def test_every_backbone_is_opened_without_loading(text_model, tmp_path):
    model = tiny_model(text_model)
    model.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    assert checkpoint.spec.text_model_type == text_model
    assert checkpoint.source == str(tmp_path) and checkpoint.revision is None
    assert_places_hold(checkpoint, model.state_dict())


def test_several_shards(folder):
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    checkpoint = open_checkpoint(folder)
    assert_places_hold(checkpoint, tiny_model().state_dict())
    assert checkpoint.spec == ModelSpec(
        architecture="LlavaNextForConditionalGeneration",
        text_model_type="llama",
        hidden_size=16,
        intermediate_size=24,
        layers=2,
        heads=2,
        kv_heads=1,
        head_dim=8,
        vocab_size=32,
        max_position_embeddings=256,
        image_token_id=3,
        eos_token_ids=(1,),
        bos_token_id=0,
        pad_token_id=2,
        tile_size=28,
        patch_size=14,
        grid_pinpoints=((28, 56), (56, 28)),
        class_token=False,
        max_visual_tokens=16,
        dtype="fp16",
    )


@pytest.mark.parametrize("naming", [old_name, str], ids=["old names", "current names"])
def test_old_and_current_tensor_names_mean_the_same(naming, tmp_path):
    model = tiny_model()
    model.config.save_pretrained(tmp_path)
    weights = model.state_dict()
    file = tmp_path / "model.safetensors"
    save_file({naming(name): weight.contiguous() for name, weight in weights.items()}, file)
    checkpoint = open_checkpoint(tmp_path)
    assert_places_hold(checkpoint, weights)
    assert checkpoint.tensors["lm_head.weight"].name == naming("lm_head.weight")
    reference = load_model(checkpoint, "fp16").state_dict()
    assert all(torch.equal(reference[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("language", LANGUAGE_MODELS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_backbone_under_all_names_that_it_ever_had(architecture, language, names, tmp_path):
    model = SmallModel(architecture, language)
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "small", model, names=names))
    assert len({place.file for place in checkpoint.tensors.values()}) > 1
    assert_places_hold(checkpoint, small_model(model).state_dict())


def test_llava_1_5(tmp_path):
    spec = open_checkpoint(write_checkpoint(tmp_path / "default", SmallModel("llava"))).spec
    assert spec.architecture == "LlavaForConditionalGeneration"
    assert (spec.grid_pinpoints, spec.class_token, spec.max_visual_tokens) == ((), False, 64)
    full = SmallModel("llava", vision="class-token")
    spec = open_checkpoint(write_checkpoint(tmp_path / "full", full)).spec
    assert (spec.grid_pinpoints, spec.class_token, spec.max_visual_tokens) == ((), True, 65)


def test_a_tied_head_shares_the_embedding_s_place_whichever_was_stored(tmp_path):
    model = tiny_model(tie_word_embeddings=True, text={"tie_word_embeddings": True})
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    assert not any("lm_head" in name for name in weights)
    embedding = weights.pop("language_model.model.embed_tokens.weight")
    for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        save_file({**weights, name: embedding}, file, metadata={"format": "pt"})
        checkpoint = open_checkpoint(tmp_path)
        tensors = checkpoint.tensors
        assert tensors["lm_head.weight"] == tensors["model.language_model.embed_tokens.weight"]
        assert tensors["lm_head.weight"].name == name
        reference = load_model(checkpoint, "fp16")
        assert torch.equal(reference.lm_head.weight, embedding)
        assert torch.equal(reference.model.language_model.embed_tokens.weight, embedding)


def test_a_tied_head_that_was_stored_as_well_is_the_embedding_or_an_error(tmp_path):
    """transformers ties two equal tensors and leaves two different ones apart."""
    model = tiny_model(tie_word_embeddings=True, text={"tie_word_embeddings": True})
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    embedding = weights["language_model.model.embed_tokens.weight"]

    save_file(
        {**weights, "language_model.lm_head.weight": embedding.clone()}, file, metadata={"format": "pt"}
    )
    tensors = open_checkpoint(tmp_path).tensors
    assert tensors["lm_head.weight"] == tensors["model.language_model.embed_tokens.weight"]

    save_file({**weights, "language_model.lm_head.weight": embedding + 1}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lm_head.weight and .*embed_tokens.weight to be equal.*found other"):
        open_checkpoint(tmp_path)


def test_constants_that_old_versions_stored_are_passed_over(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    extra = {
        "vision_tower.vision_model.embeddings.position_ids": torch.zeros(1, 5),
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4),
    }
    save_file({**load_file(file), **extra}, file)
    assert_places_hold(open_checkpoint(tmp_path), model.state_dict())


def test_the_dtype_is_that_of_most_bytes(tmp_path):
    model = tiny_model().bfloat16()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    newline = next(name for name in weights if "newline" in name)
    weights[newline] = weights[newline].float()
    save_file(weights, file)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.spec.dtype == "bf16"
    assert checkpoint.tensors["model.image_newline"].dtype == "fp32"


def test_token_ids_come_from_the_generation_config_first(folder):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 6], "pad_token_id": 7}))
    spec = open_checkpoint(folder).spec
    assert (spec.eos_token_ids, spec.pad_token_id, spec.bos_token_id) == ((5, 6), 7, 0)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_the_reference_model_has_the_asked_dtype(dtype, folder, capfd):
    model = load_model(open_checkpoint(folder), dtype)
    assert model.dtype == TORCH_DTYPES[dtype] and not model.training
    assert capfd.readouterr() == ("", "")
