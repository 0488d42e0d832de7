"""Where each tensor lies in a checkpoint's safetensors files, found from their headers alone."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asap_export.errors import UserError
from asap_export.spec import Dtype

__all__ = ["INDEX", "SINGLE", "TensorPlace", "read_shard", "same_bytes", "shard_names"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES: dict[str, tuple[Dtype, int]] = {"F32": ("fp32", 4), "F16": ("fp16", 2), "BF16": ("bf16", 2)}


@dataclass(frozen=True)
class TensorPlace:
    """One stored tensor: ``nbytes`` bytes from ``offset`` (counted from the start of the file), row-major.

    ``name`` is the one in the file; ``dtype`` is "fp32", "fp16" or "bf16".
    """

    file: Path
    name: str
    offset: int
    nbytes: int
    dtype: Dtype
    shape: tuple[int, ...]


def shard_names(folder: Path) -> list[str]:
    """File names of a checkpoint's shards, as its index lists them; they need not be there yet.

    Raises UserError where the index is damaged or weights are stored in another format only.
    """
    if (folder / SINGLE).is_file() or not (folder / INDEX).is_file():
        if not (folder / SINGLE).is_file() and (pickled := sorted(folder.glob("*.bin"))):
            raise UserError(
                f"expected safetensors weights in {folder}, found {pickled[0].name}; convert the checkpoint "
                "with transformers' save_pretrained"
            )
        return [SINGLE]
    try:
        names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"expected a weight_map in {folder / INDEX}, found none; download the file again"
        ) from error
    if outside := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise UserError(f"expected plain file names in {folder / INDEX}, found {outside[0]!r}")
    return names


def read_shard(file: Path) -> Iterator[TensorPlace]:
    """The places of all tensors of one safetensors file.

    Raises UserError where the file is missing, is no safetensors file, is shorter or longer than its header
    says, or holds another dtype than float32, float16 and bfloat16.
    """
    header, start = _header(file)
    end = start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    size = file.stat().st_size
    if size != end:
        found = "truncated" if size < end else "longer"
        raise UserError(
            f"expected {file} to have {end} bytes, found {size} ({found}); download the file again"
        )
    for name, entry in header.items():
        yield _place(file, name, entry, start)


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


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's tensor entries and the byte at which its data starts."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            start = 8 + length
            if start > file.stat().st_size:
                raise UserError(
                    f"expected a safetensors header of {length} bytes in {file}, found the file's end "
                    "(truncated, or no safetensors file); download it again"
                )
            header = json.loads(stream.read(length))
    except FileNotFoundError as error:
        raise UserError(f"expected the shard {file}, found no such file; download it again") from error
    except ValueError as error:
        raise UserError(
            f"expected a safetensors header in {file}, found other bytes; download it again"
        ) from error
    header.pop("__metadata__", None)
    return header, start


def _place(file: Path, name: str, entry: dict[str, Any], start: int) -> TensorPlace:
    if entry["dtype"] not in DTYPES:
        raise UserError(
            f"expected float32, float16 or bfloat16 weights in {file}, found {entry['dtype']} in {name}; "
            "give the checkpoint before quantization"
        )
    dtype, itemsize = DTYPES[entry["dtype"]]
    first, last = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if last - first != math.prod(shape) * itemsize:
        raise UserError(
            f"expected {name} in {file} to have {math.prod(shape) * itemsize} bytes, found {last - first}"
        )
    return TensorPlace(file, name, start + first, last - first, dtype, shape)
