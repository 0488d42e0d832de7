"""The small files of a checkpoint as JSON objects, or a refusal that names the file."""

import json
import math
from pathlib import Path
from typing import Any

from asap_export.errors import UserError

__all__ = ["one_line", "read_object"]

_LARGEST = 64 << 20  # bytes; the largest vocabularies take half of it


def read_object(file: Path) -> dict[str, Any]:
    """The object in a file of JSON, in UTF-8, with finite numbers and no name twice.

    Raises FileNotFoundError where it is missing, UserError where it holds anything else.
    """
    try:
        if file.exists() and not file.is_file() and not file.is_dir():
            raise UserError(f"expected JSON in {file}, found a pipe or a device; give a file")
        if (size := file.stat().st_size) > _LARGEST:
            raise UserError(
                f"expected at most {_LARGEST:,} bytes in {file}, found {size:,}; download it again"
            )
        content = json.loads(
            file.read_text(encoding="utf-8"),
            object_pairs_hook=_unlike_names,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except FileNotFoundError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else one_line(error)
        raise UserError(f"expected JSON in {file}, found something else: {why}; download it again") from error
    if not isinstance(content, dict):
        raise UserError(
            f"expected a JSON object in {file}, found a {type(content).__name__}; download it again"
        )
    return content


def one_line(error: BaseException, most: int = 300) -> str:
    """What an exception of a library says, of its kind where it says nothing."""
    return " ".join(str(error).split())[:most].rstrip(" :") or type(error).__name__


def _unlike_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"the name {name[:100]!r} twice in one object")
        made[name] = value
    return made


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:100]}")
    return value
