"""A checkpoint as llama.cpp reads it: GGUF files of the language model and of the vision tower with its projector.

Only for measuring: the vocabulary is written as byte-level BPE whatever it is, so prompts have the right number of
tokens and answers mean nothing. llama.cpp's own converter does not take LLaVA-NeXT in transformers' names."""

import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from asap_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from asap_export.checkpoint.loading import TORCH_DTYPES
from asap_export.checkpoint.shards import TensorPlace
from asap_export.errors import UserError

__all__ = ["MODEL", "PROJECTOR", "gguf_model", "packed"]

MODEL, PROJECTOR = "model.gguf", "mmproj.gguf"

_ALIGNMENT, _VERSION, _BLOCK = 32, 3, 32
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
# GGML's number of a type, and the bytes of a block of so many weights.
_TYPES = {"f32": (0, 4, 1), "f16": (1, 2, 1), "bf16": (30, 2, 1), "q8_0": (8, 34, 32), "q4_0": (2, 18, 32)}
_NORMAL, _CONTROL = 1, 3  # kinds of tokens
_FAMILIES = ("llama", "mistral")  # whose layers are llama.cpp's "llama"
_LANGUAGE = {
    "model.language_model.embed_tokens.": "token_embd.",
    "model.language_model.norm.": "output_norm.",
    "lm_head.": "output.",
    "model.language_model.layers.": "blk.",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attn_output",
    "self_attn.": "attn_",
    "mlp.": "ffn_",
    "_proj": "",
}
_VISION = {
    "model.vision_tower.embeddings.class_embedding": "v.class_embd",
    "model.vision_tower.embeddings.patch_embedding": "v.patch_embd",
    "model.vision_tower.embeddings.position_embedding": "v.position_embd",
    "model.vision_tower.pre_layrnorm": "v.pre_ln",
    "model.vision_tower.encoder.layers.": "v.blk.",
    "model.multi_modal_projector.linear_1": "mm.0",
    "model.multi_modal_projector.linear_2": "mm.2",
    "self_attn.out_proj": "attn_out",
    "self_attn.": "attn_",
    "_proj": "",
    "layer_norm": "ln",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}


class _Stored(NamedTuple):
    """A tensor to be written: its shape, its type in the file, and how to get it."""

    shape: tuple[int, ...]
    kind: str
    load: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        _, nbytes, weights = _TYPES[self.kind]
        return torch.Size(self.shape).numel() // weights * nbytes


def gguf_model(checkpoint: Path, weights: str, folder: Path) -> Path:
    """``folder`` with ``MODEL``, matrices in ``weights`` ("bf16", "q8_0" or "q4_0"), and ``PROJECTOR``, in f16.

    Raises UserError for checkpoints of other families than Llama's and Mistral's."""
    if folder.exists():
        return folder
    opened = open_checkpoint(checkpoint)
    family = opened.config.text_config.model_type
    if family not in _FAMILIES:
        raise UserError(
            f"expected a language model of family {' or '.join(_FAMILIES)} for GGUF, found {family}; leave "
            "llama.cpp out of --peers"
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write(partial / MODEL, _language_settings(opened), dict(_tensors(opened, _LANGUAGE, weights)))
    _write(partial / PROJECTOR, _vision_settings(opened), dict(_tensors(opened, _VISION, "f16")))
    partial.rename(folder)
    return folder


def packed(tensor: Tensor, kind: str) -> bytes:
    """The bytes of a tensor in one of GGML's types; those with blocks have a scale for every 32 weights."""
    if kind in ("f32", "f16", "bf16"):
        dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]
        return tensor.to(dtype).contiguous().view(torch.uint8).numpy().tobytes()
    blocks = tensor.float().reshape(-1, _BLOCK)
    furthest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    scale = (furthest.abs() / 127 if kind == "q8_0" else furthest / -8).half()
    steps = torch.where(scale == 0, 0.0, blocks / scale.float()).round()
    if kind == "q8_0":
        codes = steps.clamp(-127, 127).to(torch.int8).view(torch.uint8)
    else:
        nibbles = (steps + 8).clamp(0, 15).to(torch.uint8)
        codes = nibbles[:, :16] | nibbles[:, 16:] << 4
    return torch.cat([scale.view(torch.uint8), codes], dim=1).numpy().tobytes()


def _tensors(opened: Checkpoint, names: Mapping[str, str], matrices: str) -> Iterator[tuple[str, _Stored]]:
    """By llama.cpp's name those that ``names`` has a beginning for; vectors stay f32."""
    prefixes = tuple(name for name in names if name.startswith(("model.", "lm_head.")))
    for name, place in opened.tensors.items():
        if not name.startswith(prefixes):
            continue
        new = name
        for old, replacement in names.items():
            new = new.replace(old, replacement)
        kind = "f32" if len(place.shape) < 2 or "position_embd" in new else matrices
        yield new, _Stored(place.shape, kind, _loader(opened, new, place))


def _loader(opened: Checkpoint, name: str, place: TensorPlace) -> Callable[[], Tensor]:
    spec = opened.spec
    turned = re.fullmatch(r"blk\.\d+\.attn_([qk])\.weight", name)
    heads = spec.heads if turned and turned[1] == "q" else spec.kv_heads

    def load() -> Tensor:
        with place.file.open("rb") as file:
            file.seek(place.offset)
            stored = torch.frombuffer(bytearray(file.read(place.nbytes)), dtype=TORCH_DTYPES[place.dtype])
        tensor = stored.reshape(place.shape)
        if turned:  # "llama" rotates neighbouring numbers, transformers the two halves of a head
            tensor = tensor.reshape(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(place.shape)
        return tensor

    return load


def _language_settings(opened: Checkpoint) -> dict[str, Any]:
    spec, text = opened.spec, opened.config.text_config
    rope = getattr(text, "rope_theta", None) or text.rope_parameters["rope_theta"]
    settings = {
        "context_length": spec.max_position_embeddings,
        "embedding_length": spec.hidden_size,
        "block_count": spec.layers,
        "feed_forward_length": spec.intermediate_size,
        "attention.head_count": spec.heads,
        "attention.head_count_kv": spec.kv_heads,
        "attention.key_length": spec.head_dim,
        "attention.value_length": spec.head_dim,
        "attention.layer_norm_rms_epsilon": float(text.rms_norm_eps),
        "rope.dimension_count": spec.head_dim,
        "rope.freq_base": float(rope),
        "vocab_size": spec.vocab_size,
    }
    return {
        "general.architecture": "llama",
        **{f"llama.{name}": value for name, value in settings.items()},
        **_vocabulary(opened),
    }


def _vocabulary(opened: Checkpoint) -> dict[str, Any]:
    tokenizer = json.loads((opened.folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = [f"<unused {number}>" for number in range(opened.spec.vocab_size)]
    kinds = [_CONTROL] * len(tokens)
    for token, number in tokenizer["model"]["vocab"].items():
        tokens[number], kinds[number] = token, _NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]], kinds[added["id"]] = added["content"], _CONTROL
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    text = opened.config.text_config
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": text.bos_token_id,
        "tokenizer.ggml.eos_token_id": text.eos_token_id,
    }


def _vision_settings(opened: Checkpoint) -> dict[str, Any]:
    vision, images = opened.config.vision_config, opened.spec
    stored = json.loads((opened.folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    settings = {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "embedding_length": vision.hidden_size,
        "feed_forward_length": vision.intermediate_size,
        "projection_dim": images.hidden_size,
        "attention.head_count": vision.num_attention_heads,
        "attention.layer_norm_epsilon": float(vision.layer_norm_eps),
        "block_count": vision.num_hidden_layers,
        "image_mean": stored["image_mean"],
        "image_std": stored["image_std"],
        "mm_patch_merge_type": "spatial_unpad",
    }
    if images.grid_pinpoints:
        settings["image_grid_pinpoints"] = [
            side for tall, wide in images.grid_pinpoints for side in (wide, tall)
        ]
    return {
        "general.architecture": "clip",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": vision.hidden_act == "gelu",
        **{f"clip.vision.{name}": value for name, value in settings.items()},
    }


def _write(file: Path, settings: Mapping[str, Any], tensors: Mapping[str, _Stored]) -> None:
    """Header, settings, the places of all tensors, then the tensors, each at a multiple of the alignment."""
    with file.open("wb") as to:
        to.write(b"GGUF" + struct.pack("<IQQ", _VERSION, len(tensors), len(settings)))
        for name, value in settings.items():
            kind, content = _value(value)
            to.write(_text(name) + struct.pack("<I", kind) + content)
        offset = 0
        for name, tensor in tensors.items():
            shape = tensor.shape[::-1]  # the innermost first
            to.write(_text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
            to.write(struct.pack("<IQ", _TYPES[tensor.kind][0], offset))
            offset += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        _align(to)
        for tensor in tensors.values():
            to.write(packed(tensor.load(), tensor.kind))
            _align(to)


def _align(to: IO[bytes]) -> None:
    to.write(b"\0" * (-to.tell() % _ALIGNMENT))


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: Any) -> tuple[int, bytes]:
    """A setting's kind and its bytes."""
    match value:
        case bool():
            return _BOOL, struct.pack("<?", value)
        case int():
            return _U32, struct.pack("<I", value)
        case float():
            return _F32, struct.pack("<f", value)
        case str():
            return _STRING, _text(value)
        case list():
            kinds, contents = zip(*map(_value, value), strict=True)
            kind = _I32 if kinds[0] == _U32 else kinds[0]  # lists of whole numbers are read as signed ones
            return _ARRAY, struct.pack("<IQ", kind, len(value)) + b"".join(contents)
    raise TypeError(f"expected a setting, found {value!r}")
