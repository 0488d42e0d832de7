"""Whether a JSON document is what a definition says, value by value, and where it is not.

The definition is a dataclass whose types msgspec reads: the same that it makes the published schema of. Its own
``convert`` would stop at the same values, but says where and why in words only, and takes unknown names.
"""

import re
from collections.abc import Callable
from typing import Any

from msgspec import inspect

from asap_export.bundle.errors import json_type, manifest_error, member, shown

__all__ = ["check"]


def check(kind: inspect.Type, value: Any, place: str = "$") -> None:
    """Raise BundleError unless ``value`` is a ``kind``; every field must be there, defaults or not, and no other.

    Fields are looked at in the order of the definition, then unknown names, keys of a table in their own order:
    C++ does the same, so both stop at the same place.
    """
    alternatives = [_bare(each) for each in _alternatives(_bare(kind))]
    found = json_type(value)
    fitting = next((each for each in alternatives if found in _TYPES[type(each)](each)), None)
    if fitting is None:
        expected = [
            f"{_ARTICLE[name]}{name}" for each in alternatives for name in _TYPES[type(each)](each)[:1]
        ]
        raise manifest_error("wrong_type", place, " or ".join(expected), shown(value))
    if (act := _CHECKS.get(type(fitting))) is not None:
        act(fitting, value, place)


def _bare(kind: inspect.Type) -> inspect.Type:
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _alternatives(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _record(kind: inspect.DataclassType, value: dict[str, Any], place: str) -> None:
    for field in kind.fields:
        _check_member(field.type, value, field.encode_name, place)
    _refuse_others(value, {field.encode_name for field in kind.fields}, place)


def _table(kind: inspect.DictType, value: dict[str, Any], place: str) -> None:
    if isinstance(kind.key_type, inspect.LiteralType):  # one for each of its names
        names = sorted(str(name) for name in kind.key_type.values)
        for name in names:
            _check_member(kind.value_type, value, name, place)
        return _refuse_others(value, set(names), place)
    for name in sorted(value):
        check(kind.key_type, name, member(place, name))
        check(kind.value_type, value[name], member(place, name))
    return None


def _check_member(kind: inspect.Type, holder: dict[str, Any], name: str, place: str) -> None:
    if name not in holder:
        raise manifest_error("missing_field", member(place, name), "a value", "none")
    check(kind, holder[name], member(place, name))


def _refuse_others(value: dict[str, Any], known: set[str], place: str) -> None:
    for name in sorted(value.keys() - known):
        raise manifest_error("unknown_field", member(place, name), "no such field", shown(value[name]))


def _list(kind: inspect.VarTupleType, value: list[Any], place: str) -> None:
    _check_length(kind, value, place, "elements")
    for number, element in enumerate(value):
        check(kind.item_type, element, member(place, number))


def _tuple(kind: inspect.TupleType, value: list[Any], place: str) -> None:
    if len(value) != len(kind.item_types):
        raise manifest_error("wrong_length", place, f"{len(kind.item_types)} elements", str(len(value)))
    for number, element_kind in enumerate(kind.item_types):
        check(element_kind, value[number], member(place, number))


def _text(kind: inspect.StrType, value: str, place: str) -> None:
    _check_length(kind, value, place, "characters")
    if kind.pattern is not None and not re.search(kind.pattern, value):
        raise manifest_error("wrong_format", place, f"a text that matches {kind.pattern}", shown(value))


def _check_length(kind: inspect.StrType | inspect.VarTupleType, value: Any, place: str, unit: str) -> None:
    least, most = kind.min_length or 0, kind.max_length
    if len(value) < least or (most is not None and len(value) > most):
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        raise manifest_error("wrong_length", place, f"{limits} {unit}", str(len(value)))


def _number(kind: inspect.IntType | inspect.FloatType, value: float, place: str) -> None:
    least, most = (kind.gt if kind.ge is None else kind.ge), kind.le
    above = least is None or (value >= least if kind.gt is None else value > least)
    if not above or (most is not None and value > most):
        limits = f"{'from' if kind.gt is None else 'above'} {least} to {most}"
        raise manifest_error("out_of_range", place, f"a number {limits}", shown(value))


def _choice(kind: inspect.LiteralType, value: Any, place: str) -> None:
    if value not in kind.values:
        raise manifest_error(
            "unknown_value", place, f"one of {', '.join(map(str, kind.values))}", shown(value)
        )


# JSON's types that a value of each kind may have.
_TYPES: dict[type[inspect.Type], Callable[[Any], tuple[str, ...]]] = {
    inspect.NoneType: lambda kind: ("null",),
    inspect.BoolType: lambda kind: ("boolean",),
    inspect.IntType: lambda kind: ("integer",),
    inspect.FloatType: lambda kind: ("number", "integer"),
    inspect.StrType: lambda kind: ("string",),
    inspect.LiteralType: lambda kind: (json_type(kind.values[0]),),
    inspect.VarTupleType: lambda kind: ("array",),
    inspect.TupleType: lambda kind: ("array",),
    inspect.DictType: lambda kind: ("object",),
    inspect.DataclassType: lambda kind: ("object",),
}
_ARTICLE = {
    "null": "", "boolean": "a ", "integer": "an ", "number": "a ", "string": "a ", "array": "an ", "object": "an ",
}  # fmt: skip
_CHECKS: dict[type[inspect.Type], Callable[[Any, Any, str], None]] = {
    inspect.IntType: _number,
    inspect.FloatType: _number,
    inspect.StrType: _text,
    inspect.LiteralType: _choice,
    inspect.VarTupleType: _list,
    inspect.TupleType: _tuple,
    inspect.DictType: _table,
    inspect.DataclassType: _record,
}
