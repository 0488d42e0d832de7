"""Why a folder is no bundle: a code and a place for programs, one line for people."""

import json
import re
from typing import Any, Literal, get_args

from asap_export.errors import UserError

__all__ = ["BundleError", "Code", "json_type", "manifest_error", "member", "shown"]

# The same in C++ (engines/cpp/include/asap/error.hpp). Of the document, then of its values, then of the folder.
Code = Literal[
    "too_large", "too_deep", "invalid_json", "duplicate_key", "wrong_version",
    "missing_field", "unknown_field", "wrong_type", "unknown_value", "out_of_range", "wrong_length",
    "wrong_format", "inconsistent",
    "no_bundle", "unfinished", "unreadable", "unlisted_file", "outside", "missing_file", "wrong_size",
    "wrong_hash", "changed",
]  # fmt: skip

_LONGEST = 60  # characters of a value or a key in a message
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class BundleError(UserError):
    """A bundle that cannot be used.

    ``code`` says which kind of fault it is, ``place`` where: ``$.model.layers`` in the manifest, or a file of the
    folder (empty: the folder itself). C++ refuses the same bundles with the same two.
    """

    def __init__(self, code: Code, place: str, message: str) -> None:
        assert code in get_args(Code)
        super().__init__(message)
        self.code, self.place = code, place


def manifest_error(code: Code, place: str, expected: str, found: str) -> BundleError:
    """A fault of manifest.json at ``place``, in one line."""
    return BundleError(
        code,
        place,
        f"expected {expected} at {place} of manifest.json, found {found} ({code}); export the bundle again",
    )


def member(place: str, key: str | int) -> str:
    """The place of an object's member or an array's element."""
    if isinstance(key, int):
        return f"{place}[{key}]"
    if len(key) <= _LONGEST and _PLAIN.fullmatch(key):
        return f"{place}.{key}"
    return f"{place}[{_quoted(key)}]"


def json_type(value: Any) -> str:
    """JSON's own word for a value that ``json.loads`` gave; whole numbers are "integer".

    Floats without a fraction are not, unless they are larger than any integer of 64 bits: other readers of JSON
    give integers of that size as floats.
    """
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if abs(value) >= 2**63 else "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def shown(value: Any) -> str:
    """A value in a message: short, in ASCII, without line breaks."""
    if isinstance(value, list | dict):
        return f"an {json_type(value)}"
    return _quoted(value) if isinstance(value, str) else _cut(json.dumps(value))


def _quoted(text: str) -> str:
    whole = json.dumps(text)
    return whole if len(whole) <= _LONGEST else f'{whole[:_LONGEST]}..."'


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
