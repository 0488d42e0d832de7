"""Damaged and hostile checkpoints, made from a small sound one; ``--plan`` reads all of it but the tensors."""

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from case import Case, changed, copied, left_out, replaced

__all__ = ["checkpoint_cases"]

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
)
OPTIONAL = ("special_tokens_map.json", "added_tokens.json")
DEEP = 100_000
PROPORTIONAL = {"rope_type": "proportional", "rope_theta": 1e4}  # one that transformers knows

# Sizes of config.json; what stands behind one of them are values that are right for it.
_TEXT_SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "vocab_size", "max_position_embeddings",
)  # fmt: skip
_VISION_SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size",
    "num_channels",
)  # fmt: skip
_NO_SIZES = (0, -3, 2.5, "8", "wide", 10**30, 10**6, 2**31, [8], {"size": 8}, True)
_NO_TEXTS = (5, 2.5, [], ["silu"], {}, True, "", "no_such_word", "x" * 100_000)
_NO_NUMBERS = ("much", [1.0], {}, -1.0, 10**400)
_OTHER_TYPES: tuple[Any, ...] = (None, True, -1, 2.5, 10**30, "text", "", [], [[]], {}, {"a": {"b": []}})


def checkpoint_cases(sound: Path) -> Iterator[Case]:
    """All cases from ``sound``, a small checkpoint of several shards."""

    def case(kind: str, name: str, change: Callable[[Path], object], harmless: bool = False) -> Case:
        def make(folder: Path) -> list[str | Path]:
            change(copied(sound, folder / "model"))
            return ["--model", folder / "model", "--output", folder / "out.bundle", "--plan"]

        return Case(kind, name, make, harmless, rightly=_transformers_takes_it)

    yield from _shards(case, sound)
    yield from _indices(case)
    yield from _documents(case)
    yield from _config(case)
    yield from _fields(case, sound)


def _transformers_takes_it(folder: Path, _: str) -> bool:
    """What transformers loads, an export takes too."""
    from transformers import AutoConfig, AutoProcessor, GenerationConfig

    model = folder / "model"
    AutoConfig.from_pretrained(model)
    AutoProcessor.from_pretrained(model)
    if (model / "generation_config.json").is_file():
        GenerationConfig.from_pretrained(model)
    return True


def _header(folder: Path, header: Any, length: int | None = None, behind: bytes = b"") -> None:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(content) if length is None else length
    file = min(folder.glob("model-*.safetensors"))
    replaced(file, struct.pack("<Q", size) + content + behind)


def _shards(case: Callable[..., Case], sound: Path) -> Iterator[Case]:
    kind = "safetensors header"
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    headers: dict[str, Any] = {
        "a list": [], "a number": 5, "null": None, "text": "a", "empty": b"", "no JSON": b"{" * 50,
        "a list as entry": {"a": []}, "null as entry": {"a": None}, "a number as entry": {"a": 5},
        "an unknown dtype": {"a": entry | {"dtype": "F31"}}, "a number as dtype": {"a": entry | {"dtype": 5}},
        "null as dtype": {"a": entry | {"dtype": None}}, "a list as dtype": {"a": entry | {"dtype": []}},
        "text as shape": {"a": entry | {"shape": "2"}}, "a negative shape": {"a": entry | {"shape": [-2]}},
        "a shape of fractions": {"a": entry | {"shape": [2.0]}}, "a huge shape": {"a": entry | {"shape": [2**63]}},
        "a shape that overflows": {"a": entry | {"shape": [2**40, 2**40]}},
        "a nested shape": {"a": entry | {"shape": [[2]]}},
        "offsets backwards": {"a": entry | {"data_offsets": [8, 0]}},
        "one offset": {"a": entry | {"data_offsets": [8]}},
        "three offsets": {"a": entry | {"data_offsets": [0, 8, 8]}},
        "negative offsets": {"a": entry | {"data_offsets": [-8, 0]}},
        "offsets beyond the file": {"a": entry | {"data_offsets": [0, 2**62]}},
        "offsets of fractions": {"a": entry | {"data_offsets": [0, 8.0]}},
        "metadata as a list": {"__metadata__": [], "a": entry},
        "metadata of numbers": {"__metadata__": {"format": 5}, "a": entry},
        "nested deeply": b"[" * DEEP + b"]" * DEEP, "nested deeply in an entry": b'{"a":' * DEEP,
        "UTF-16": json.dumps({"a": entry}).encode("utf-16"), "no UTF-8": b'{"\xff\xfe": 5}',
        "a name twice": b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        "a line end in a name": {"a\nb\x1b[31m": []},
        "a name of a megabyte": {"a" * 1_000_000: []},
        "many entries": {f"a{i}": entry | {"shape": [0], "data_offsets": [8, 8]} for i in range(100_000)},
    }  # fmt: skip
    for name, header in headers.items():
        yield case(kind, name, lambda folder, header=header: _header(folder, header, behind=bytes(8)))
    for length in (0, 1, 2**31, 2**33, 2**63, 2**64 - 1):
        yield case(kind, f"a length of {length}", lambda folder, n=length: _header(folder, b"{}", length=n))

    def large(folder: Path) -> None:
        file = min(folder.glob("model-*.safetensors"))
        replaced(file, struct.pack("<Q", 3 << 30))
        with file.open("r+b") as stream:
            stream.truncate((3 << 30) + 8)

    yield case(kind, "three gigabytes of zeros", large)
    yield case(kind, "an empty file", lambda folder: replaced(min(folder.glob("model-*")), b""))
    yield case(kind, "seven bytes", lambda folder: replaced(min(folder.glob("model-*")), b"1234567"))

    def a_folder(folder: Path) -> None:
        file = min(folder.glob("model-*.safetensors"))
        file.unlink()
        file.mkdir()

    yield case(kind, "a folder", a_folder)
    yield case(kind, "missing", lambda folder: min(folder.glob("model-*.safetensors")).unlink())


def _indices(case: Callable[..., Case]) -> Iterator[Case]:
    kind, name = "index of shards", "model.safetensors.index.json"
    whole: dict[str, Any] = {
        "a list": [], "null": None, "a number": 5, "text": "a", "without weight_map": {},
        "a list as weight_map": {"weight_map": []}, "null as weight_map": {"weight_map": None},
        "text as weight_map": {"weight_map": "model.safetensors"}, "empty": {"weight_map": {}},
    }  # fmt: skip
    for said, content in whole.items():
        yield case(kind, said, lambda folder, c=content: replaced(folder / name, json.dumps(c).encode()))
    entries = {
        "above": "../model.safetensors", "the folder above": "..", "this folder": ".", "absolute": "/etc/passwd",
        "no name": "", "an overlong name": "a" * 5000 + ".safetensors", "null": None, "a number": 5, "a list": [],
        "an object": {}, "a zero byte": "a\0.safetensors", "a surrogate": "\ud800.safetensors",
        "a missing shard": "model-00009.safetensors", "a line end": "a\nb.safetensors", "a backslash": "..\\a",
        "config.json": "config.json",
    }  # fmt: skip
    path = ("weight_map", "lm_head.weight")
    for said, entry in entries.items():
        yield case(kind, f"an entry: {said}", lambda folder, e=entry: changed(folder / name, path, e))
    many = {f"a{i}": f"model-{i}.safetensors" for i in range(100_000)}
    yield case(
        kind,
        "100,000 shards",
        lambda folder: replaced(folder / name, json.dumps({"weight_map": many}).encode()),
    )


def _documents(case: Callable[..., Case]) -> Iterator[Case]:
    """What is no JSON object of its kind, in each of the small files."""
    contents: dict[str, bytes] = {
        "empty": b"", "a list": b"[]", "null": b"null", "a number": b"5", "text": b'"a"', "true": b"true",
        "truncated": b'{"a": [1, 2', "spaces": b"   \n", "zeros": bytes(4096), "no UTF-8": b'{"a": "\xff"}',
        "nested lists": b"[" * DEEP + b"]" * DEEP, "nested objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    }  # fmt: skip
    for file in (*SMALL_FILES, *OPTIONAL, "model.safetensors.index.json"):
        for name, content in contents.items():
            yield case(f"{file}", name, lambda folder, f=file, c=content: replaced(folder / f, c))
        yield case(
            file, "empty object", lambda folder, f=file: replaced(folder / f, b"{}"), _may_be_empty(file)
        )
        yield case(
            file,
            "100 MB",
            lambda folder, f=file: replaced(folder / f, b'{"a": "' + b"x" * 100_000_000 + b'"}'),
        )
    for file in (*SMALL_FILES, "model.safetensors.index.json"):
        yield case(
            file,
            "a name twice",
            lambda folder, f=file: _with_front(folder / f, b'"model_type": 5, "model_type": 5,'),
        )
        yield case(file, "NaN", lambda folder, f=file: _with_front(folder / f, b'"odd": NaN,'))
        yield case(file, "UTF-16", lambda folder, f=file: _encoded(folder / f, "utf-16"))
        yield case(file, "with a BOM", lambda folder, f=file: _encoded(folder / f, "utf-8-sig"))
        yield case(
            file,
            "an integer of 10,000 digits",
            lambda folder, f=file: _with_front(folder / f, b'"odd": ' + b"9" * 10_000 + b","),
        )
        yield case(
            file,
            "a folder",
            lambda folder, f=file: ((folder / f).unlink(), (folder / f).mkdir()),
            _may_be_missing(file),
        )
        yield case(
            file,
            "a link to itself",
            lambda folder, f=file: ((folder / f).unlink(), (folder / f).symlink_to(f)),
            _may_be_missing(file),
        )
        for kind in ("a pipe", "a device"):
            yield case(file, kind, lambda folder, f=file, kind=kind: _never_ends(folder / f, kind))
        yield case(file, "missing", lambda folder, f=file: (folder / f).unlink(), _may_be_missing(file))
        yield case(
            file,
            "half of it",
            lambda folder, f=file: replaced(
                folder / f, (folder / f).read_bytes()[: (folder / f).stat().st_size // 2]
            ),
        )


def _never_ends(file: Path, kind: str) -> None:
    file.unlink()
    if kind == "a pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")


def _may_be_empty(file: str) -> bool:
    return file not in ("config.json", "tokenizer.json", "model.safetensors.index.json")


def _may_be_missing(file: str) -> bool:
    return file in ("generation_config.json", "processor_config.json", "tokenizer_config.json")


def _with_front(file: Path, front: bytes) -> None:
    replaced(file, file.read_bytes().replace(b"{", b"{" + front, 1))


def _encoded(file: Path, encoding: str) -> None:
    replaced(file, file.read_text(encoding="utf-8").encode(encoding))


def _config(case: Callable[..., Case]) -> Iterator[Case]:
    def field(path: tuple[str | int, ...], value: Any, harmless: bool = False) -> Case:
        shown = repr(value)
        name = f"{'.'.join(map(str, path))} = {shown[:40]}{'...' if len(shown) > 40 else ''}"
        return case(
            "field of config.json",
            name,
            lambda folder: changed(folder / "config.json", path, value),
            harmless,
        )

    for part, sizes in (("text_config", _TEXT_SIZES), ("vision_config", _VISION_SIZES)):
        for size in sizes:
            positions = size == "max_position_embeddings"  # as many as it likes: no tensor has this size
            for value in _NO_SIZES:
                yield field((part, size), value, positions and value in (10**6, 2**31))
            yield field((part, size), None, harmless=True)
        for value in (None, [], 5, "text", True, [{}]):
            yield field((part,), value)
        for name in ("hidden_act", "model_type"):
            for value in _NO_TEXTS:
                yield field((part, name), value)
    for value in _NO_TEXTS:
        yield field(("projector_hidden_act",), value)
        yield field(("vision_feature_select_strategy",), value)
        yield field(("model_type",), value)
    for value in (5, [5], [None], "LlavaForConditionalGeneration", {}, {"a": 1}, True, [[]], ["x\ny"]):
        yield field(("architectures",), value)
    for value in (None, []):
        yield field(("architectures",), value, harmless=True)
    for part, name in (("text_config", "rms_norm_eps"), ("vision_config", "layer_norm_eps")):
        for value in _NO_NUMBERS:
            yield field((part, name), value)
    for path in (("text_config", "attention_bias"), ("text_config", "mlp_bias"), ("tie_word_embeddings",),
                 ("text_config", "tie_word_embeddings"), ("multimodal_projector_bias",)):  # fmt: skip
        for value in ("no", 5, [], {}, 0.5):
            yield field(path, value)
    ropes: tuple[Any, ...] = (
        [], 5, "default", [{}], {"rope_type": "no_such"}, {"rope_type": 5}, {"rope_type": []},
        {"rope_type": "linear"}, {"rope_type": "linear", "factor": "much"}, {"rope_type": "linear", "factor": 0},
        {"rope_type": "linear", "factor": -2.0}, {"rope_type": "default", "rope_theta": "a"},
        {"rope_type": "default", "rope_theta": 0}, {"rope_type": "default", "rope_theta": -1.0},
        {"rope_type": "yarn"}, {"rope_type": "llama3"}, {"rope_type": "llama3", "factor": 8.0},
        {"full_attention": {"rope_type": "default", "rope_theta": 1e4}},
        PROPORTIONAL,
    )  # fmt: skip
    for rope in ropes:
        yield field(
            ("text_config", "rope_parameters"),
            rope,
            isinstance(rope, dict) and ("full_attention" in rope or rope == PROPORTIONAL),
        )
        yield field(("text_config", "rope_scaling"), rope, harmless=True)  # rope_parameters stand beside it
    pinpoints: tuple[Any, ...] = (
        None, [], 5, "text", {}, [5], [[56]], [[56, 56, 56]], [[-56, 56]], [[0, 56]], [["56", "56"]],
        [[[56, 56]]], [[56.0, 112]], [[56, 112]] * 112_000, [[56, 56 * n] for n in range(1, 112_000)],
        [[56 * 10**6, 56 * 10**6]], [[56 * 10**30, 56]], [[True, 56]], [None],
    )  # fmt: skip
    for value in pinpoints:
        yield field(
            ("image_grid_pinpoints",), value, harmless=value is None or value == [[56, 112]] * 112_000
        )
    for value in ("text", 1.5, [1.5], [[1]], {}, [], 10**30, -99, [None], True, [0] * 100_000):
        yield field(("vision_feature_layer",), value)
    yield field(("vision_feature_layer",), None, harmless=True)
    for value in ("3", 1.5, [3], {}, -1, 10**30, True, 2**63):
        yield field(("image_token_index",), value)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            yield field(("text_config", name), value, harmless=True)  # generation_config.json comes first
    for value in ("float31", 5, [], {}, "int8", True):
        yield field(("dtype",), value, harmless=True)  # the weights themselves decide
    for value in ("text", 5, {}, [5], ["no_such_attention"] * 3, ["full_attention"]):
        yield field(("text_config", "layer_types"), value, harmless=True)
    for value in (5, "text", [], {}, {"bits": 4}):
        yield field(("quantization_config",), value)


def _fields(case: Callable[..., Case], sound: Path) -> Iterator[Case]:
    """Each field of the other small files, of each other type; what nothing reads may be taken."""
    for file in SMALL_FILES[1:]:
        content = json.loads((sound / file).read_text(encoding="utf-8"))
        for number, path in enumerate(_paths(content)):
            shown = ".".join(map(str, path))
            for value in _OTHER_TYPES[
                number % 4 :: 4
            ]:  # in turn, so that all of it stays a matter of minutes
                text = repr(value)
                yield case(
                    f"field of {file}",
                    f"{shown} = {text[:30]}",
                    lambda folder, f=file, p=path, v=value: changed(folder / f, p, v),
                    harmless=True,
                )
            yield case(
                f"field of {file}",
                f"without {shown}",
                lambda folder, f=file, p=path: left_out(folder / f, p),
                harmless=True,
            )


def _paths(content: Any, path: tuple[str | int, ...] = (), most: int = 2) -> Iterator[tuple[str | int, ...]]:
    """Each field, of lists and vocabularies the first ones."""
    if path:
        yield path
    if isinstance(content, dict):
        items: list[tuple[str | int, Any]] = list(content.items())
        if len(items) > 50:
            items = items[:most]
    elif isinstance(content, list):
        items = list(enumerate(content[:1]))
    else:
        return
    if len(path) < 3:
        for key, value in items:
            yield from _paths(value, (*path, key), most)
