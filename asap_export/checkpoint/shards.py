"""Where each tensor lies in a checkpoint's safetensors files, found from their headers alone."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from asap_export.checkpoint.json_file import read_object
from asap_export.errors import UserError

__all__ = ["INDEX", "SINGLE", "TensorPlace", "read_shard", "same_bytes", "shard_names"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_FILE_NAME = re.compile(r"(?!\.+$)[^/\\\x00-\x1f\ud800-\udfff]{1,200}")
_LONGEST_HEADER = 100_000_000  # bytes, the library's own limit
_DTYPES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}


@dataclass(frozen=True)
class TensorPlace:
    """One stored tensor: ``nbytes`` bytes from ``offset`` (counted from the start of the file), row-major.

    ``name`` is the one in the file; ``dtype`` is "fp64", "fp32", "fp16" or "bf16", and of what is no weight, such
    as stored positions, the file's own word.
    """

    file: Path
    name: str
    offset: int
    nbytes: int
    dtype: str
    shape: tuple[int, ...]


def shard_names(folder: Path) -> list[str]:
    """File names of a checkpoint's shards, as its index lists them; they need not be there yet.

    Raises UserError where the index is damaged or weights are stored in another format only.
    """
    if (folder / SINGLE).is_file() or not (folder / INDEX).is_file():
        if not (folder / SINGLE).is_file() and (folder / "adapter_config.json").is_file():
            raise UserError(
                f"expected a whole model in {folder}, found a LoRA adapter; merge it into its base model first, "
                "with PEFT's merge_and_unload and save_pretrained"
            )
        if not (folder / SINGLE).is_file() and (pickled := sorted(folder.glob("*.bin"))):
            raise UserError(
                f"expected safetensors weights in {folder}, found {pickled[0].name}; convert the checkpoint "
                "with transformers' save_pretrained"
            )
        return [SINGLE]
    weight_map = read_object(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"expected a weight_map in {folder / INDEX}, found none; download the file again")
    for name in weight_map.values():
        if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
            raise UserError(
                f"expected plain file names in {folder / INDEX}, found {ascii(name)[:100]}; "
                "download the file again"
            )
    return sorted(set(weight_map.values()))


def read_shard(file: Path) -> Iterator[TensorPlace]:
    """The places of all tensors of one safetensors file, in the order of its header.

    Raises UserError where the file is missing, is no whole safetensors file, or names a tensor twice. Reads no
    tensor.
    """
    _validate(file)
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(length), object_pairs_hook=_unlike_names)
        except _NameTwice as error:
            raise UserError(
                f"expected each name once in the header of {file}, found {error} twice; download the file again"
            ) from error
    header.pop("__metadata__", None)
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        dtype = _DTYPES.get(entry["dtype"], entry["dtype"])
        yield TensorPlace(file, name, 8 + length + first, last - first, dtype, tuple(entry["shape"]))


def same_bytes(one: TensorPlace, other: TensorPlace, piece: int = 1 << 24) -> bool:
    """Whether two stored tensors have the same dtype, shape and values, bit for bit."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with one.file.open("rb") as ours, other.file.open("rb") as theirs:
        ours.seek(one.offset)
        theirs.seek(other.offset)
        left = one.nbytes
        while left:
            size = min(left, piece)
            if ours.read(size) != theirs.read(size):
                return False
            left -= size
    return True


def _validate(file: Path) -> None:
    """Let the library read the header: it takes one whose tensors fill the file, in order and without a hole."""
    try:
        with file.open("rb") as stream:
            if (length := int.from_bytes(stream.read(8), "little")) > _LONGEST_HEADER:
                raise SafetensorError(f"header too large: {length:,} bytes")
        with safe_open(file, framework="numpy"):
            pass
    except FileNotFoundError as error:
        raise UserError(f"expected the shard {file}, found no such file; download it again") from error
    except MemoryError as error:
        raise UserError(
            f"expected address space for {file} ({file.stat().st_size:,} bytes), found less; raise ulimit -v"
        ) from error
    except (SafetensorError, OSError) as error:
        why = str(error).removeprefix("Error while deserializing header: ")
        raise UserError(
            f"expected a whole safetensors file, found {file} ({file.stat().st_size:,} bytes) truncated or "
            f"damaged: {ascii(why[:300])[1:-1]}; download it again"
        ) from error


class _NameTwice(Exception):
    pass


def _unlike_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the header. The library lets two entries of one name pass where they are alike."""
    entries: dict[str, Any] = {}
    for name, entry in pairs:
        if name in entries:
            raise _NameTwice(repr(name[:300]))
        entries[name] = entry
    return entries
