"""Bytes to a JSON document, or a refusal: never a hang, a crash or a second reading of the same bytes."""

import json
import math
import re
from typing import Any

import numpy as np

from asap_export.bundle.errors import manifest_error, member

__all__ = ["DEEPEST", "LARGEST", "read_document"]

LARGEST = 8 << 20  # bytes; a hundred times what an export writes
DEEPEST = 32  # arrays and objects within each other; the definition needs nine

_STRING = re.compile(rb'(?s)"[^"\\]*(?:\\.[^"\\]*)*"?')
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_document(content: bytes) -> Any:
    """The JSON value in ``content``: in UTF-8 without a byte order mark, finite numbers, no name twice.

    Raises BundleError with the code too_large, too_deep, invalid_json or duplicate_key; its place is the root, of
    the last the name wherever it stands.
    """
    if len(content) > LARGEST:
        raise manifest_error("too_large", "$", f"at most {LARGEST} bytes", f"{len(content)}")
    _check_depth(content)
    twice: list[str] = []
    try:
        text = content.decode("utf-8")
        document = json.loads(
            text,
            object_pairs_hook=lambda pairs: _object(pairs, twice),
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_finite,
        )
        if _SURROGATE.search(text):  # half of a pair is no character
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except ValueError as error:
        raise manifest_error("invalid_json", "$", "JSON", _reason(error)) from error
    if twice:
        raise manifest_error("duplicate_key", member("$.", twice[0]), "one value", "two")
    return document


def _check_depth(content: bytes) -> None:
    """Before parsing, because parsers go down a level of their stack for each level of the document."""
    brackets = _STRING.sub(b"", content).translate(None, _NO_BRACKETS)
    opens = np.isin(np.frombuffer(brackets, np.uint8), np.frombuffer(b"[{", np.uint8))
    if np.cumsum(np.where(opens, 1, -1)).max(initial=0) > DEEPEST:
        raise manifest_error("too_deep", "$", f"at most {DEEPEST} levels of arrays and objects", "more")


def _object(pairs: list[tuple[str, Any]], twice: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            twice.append(name)
        made[name] = value
    return made


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= 20 else _finite(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number beyond those of 64 bits")
    return value


def _reason(error: ValueError) -> str:
    if isinstance(error, UnicodeError):
        return "bytes that are not UTF-8"
    return f"none: {error}"
