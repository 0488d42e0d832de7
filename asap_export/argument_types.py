"""Whether arguments are of the types that their annotations say: a program's mistakes, told in a line."""

from collections.abc import Collection
from functools import cache
from os import PathLike
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

from asap_export.errors import UserError

__all__ = ["check_count", "check_path", "check_types"]


def check_types(record: Any, but: Collection[str] = ()) -> None:
    """Raise UserError where a field of a dataclass, ``but`` for some, is no value of its annotation.

    The line names both types and never shows the value, which may be an image. NumPy's numbers become Python's;
    True is no number.
    """
    hints: dict[str, Any] = _hints(type(record))  # type: ignore[arg-type]
    for name, kind in hints.items():
        if name in but:
            continue
        value = getattr(record, name)
        if isinstance(value, np.generic):
            object.__setattr__(record, name, value := value.item())
        if get_origin(kind) is Literal and isinstance(value, str) and value not in get_args(kind):
            raise UserError(f"expected {_option(name)} among {', '.join(get_args(kind))}, found {value!r}")
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            expected = str(error).partition(", got ")[0].removeprefix("Expected ").replace("`", "")
            words = expected.replace(" | null", "").replace("array", "list").replace(" | ", " or ")
            raise UserError(
                f"expected {_option(name)} as {words}, found a value of type {type(value).__name__}; convert it"
            ) from error


def check_path(name: str, value: object) -> None:
    """Raise UserError unless a value is text or a path."""
    if not isinstance(value, str | PathLike):
        raise UserError(
            f"expected {_option(name)} as text or a path, found a value of type {type(value).__name__}; convert it"
        )


def check_count(name: str, value: object) -> None:
    """Raise UserError unless a value is a whole number; True is none."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise UserError(
            f"expected {_option(name)} as int, found a value of type {type(value).__name__}; convert it"
        )


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Annotations without bounds: those have words of their own."""
    return get_type_hints(kind)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
