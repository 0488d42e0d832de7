"""Frozen dataclasses to JSON values and back, by their type hints."""

import dataclasses
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["from_json", "to_json"]


def to_json(record: Any) -> Any:
    """``record`` (a dataclass, tuple, dict or plain value) as dicts, lists and plain values."""
    if dataclasses.is_dataclass(record):
        return {field.name: to_json(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, dict):
        return {key: to_json(value) for key, value in record.items()}
    if isinstance(record, tuple | list):
        return [to_json(value) for value in record]
    return record


def from_json(kind: Any, value: Any) -> Any:
    """``value`` as an instance of ``kind``; it must already satisfy the schema, nothing is checked here.

    ``kind`` is a dataclass, ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[str, X]``, a union, a ``Literal`` or a
    plain type. Of a union, plain members are taken as they come; only ``X | None`` may hold a record.
    """
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: from_json(hints[name], part) for name, part in value.items()})  # type: ignore[operator]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(from_json(part_kind, part) for part_kind, part in zip(kinds, value, strict=True))
    if origin is dict:
        return {key: from_json(arguments[1], part) for key, part in value.items()}
    if origin in (Union, types.UnionType):
        members = [member for member in arguments if member is not type(None)]
        return from_json(members[0], value) if value is not None and len(members) == 1 else value
    if origin is Literal:
        return value
    return float(value) if kind is float else value
