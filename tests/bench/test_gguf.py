"""A checkpoint as llama.cpp reads it: settings, names, the order of rows, blocks of 8 and of 4 bits."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from asap_export.bench.gguf import MODEL, PROJECTOR, gguf_model, packed
from asap_export.errors import UserError


def read_gguf(file: Path) -> tuple[dict, dict]:
    """Settings, and tensors as (shape, kind, bytes) by name; as ggml/docs/gguf.md in llama.cpp has it."""
    data, place = file.read_bytes(), 0

    def take(form: str):
        nonlocal place
        values = struct.unpack_from(f"<{form}", data, place)
        place += struct.calcsize(f"<{form}")
        return values if len(values) > 1 else values[0]

    def text() -> str:
        return take(f"{take('Q')}s").decode()

    def value(kind: int):
        if kind == 9:
            of, count = take("I"), take("Q")
            return [value(of) for _ in range(count)]
        return text() if kind == 8 else take({4: "I", 5: "i", 6: "f", 7: "?"}[kind])

    magic, version, tensors, settings = take("4sIQQ")
    assert (magic, version) == (b"GGUF", 3)
    said = {text(): value(take("I")) for _ in range(settings)}
    places = {}
    for _ in range(tensors):
        name, dimensions = text(), take("I")
        shape = [take("Q") for _ in range(dimensions)]
        places[name] = (shape, take("I"), take("Q"))
    start = -(-place // 32) * 32
    return said, {name: (shape, kind, data[start + at :]) for name, (shape, kind, at) in places.items()}


def test_a_checkpoint_as_gguf(random_checkpoint, tmp_path):
    folder = gguf_model(random_checkpoint, "bf16", tmp_path / "gguf")
    settings, tensors = read_gguf(folder / MODEL)
    config = json.loads((random_checkpoint / "config.json").read_text())["text_config"]
    assert settings["general.architecture"] == "llama"
    assert settings["llama.block_count"] == config["num_hidden_layers"]
    assert len(settings["tokenizer.ggml.tokens"]) == settings["llama.vocab_size"] == config["vocab_size"]
    shape, kind, data = tensors["blk.0.attn_norm.weight"]
    assert (shape, kind) == ([config["hidden_size"]], 0)
    stored = weight(random_checkpoint, "language_model.layers.0.input_layernorm.weight")
    assert np.array_equal(np.frombuffer(data, np.float32, len(stored)), stored)

    shape, kind, data = tensors["blk.0.attn_q.weight"]
    stored = weight(random_checkpoint, "language_model.layers.0.self_attn.q_proj.weight")
    assert shape == list(stored.shape[::-1]) and kind == 30
    rows = (
        torch.frombuffer(bytearray(data[: 2 * stored.size]), dtype=torch.bfloat16)
        .float()
        .reshape(stored.shape)
    )
    half = config["head_dim"] // 2  # rows of a head's two halves take turns
    assert torch.equal(rows[0], torch.from_numpy(stored[0]).bfloat16().float())
    assert torch.equal(rows[1], torch.from_numpy(stored[half]).bfloat16().float())

    settings, tensors = read_gguf(folder / PROJECTOR)
    assert settings["clip.projector_type"] == "mlp" and "mm.2.weight" in tensors
    assert tensors["v.patch_embd.weight"][0][:3] == [settings["clip.vision.patch_size"]] * 2 + [3]


def weight(checkpoint: Path, ending: str) -> np.ndarray:
    tensors = {
        name: value for file in checkpoint.glob("*.safetensors") for name, value in load_file(file).items()
    }
    (found,) = [value for name, value in tensors.items() if name.endswith(ending)]
    return found.astype(np.float32)


def test_blocks_of_8_and_4_bits_are_near_the_weights():
    weights = torch.linspace(-1.0, 1.0, 64)
    eight = np.frombuffer(packed(weights, "q8_0"), np.dtype([("scale", "<f2"), ("codes", "i1", 32)]))
    assert np.abs(eight["scale"][:, None] * eight["codes"] - weights.numpy().reshape(2, 32)).max() < 1 / 127
    four = np.frombuffer(packed(weights, "q4_0"), np.dtype([("scale", "<f2"), ("codes", "u1", 16)]))
    codes = np.concatenate([four["codes"] & 15, four["codes"] >> 4], axis=1).astype(np.float32) - 8
    assert np.abs(four["scale"][:, None] * codes - weights.numpy().reshape(2, 32)).max() < 1 / 7


def test_gguf_of_another_family_is_refused(tmp_path, monkeypatch, random_checkpoint):
    copied = shutil.copytree(random_checkpoint, tmp_path / "copied")
    monkeypatch.setattr("asap_export.bench.gguf._FAMILIES", ("mistral",))
    with pytest.raises(UserError, match="expected a language model of family mistral for GGUF, found llama"):
        gguf_model(copied, "bf16", tmp_path / "gguf")
