"""Hostile manifests, with what both runtimes must say of each: a code and a place, or nothing.

Most are made from the definition: every field of every record left out, given a value of another type, and led
across each of its bounds. What is expected is stated here, not asked of a reader. The rest are written by hand:
bytes that are no document, and values that are right one by one and wrong together.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from msgspec import inspect
from sound_manifests import sound

from asap_export.bundle import (
    SCHEMA_VERSION,
    Manifest,
)


@dataclass(frozen=True)
class Case:
    """A manifest's bytes; ``code`` and ``place`` of the refusal are empty where it is to be taken."""

    name: str
    content: bytes
    code: str = ""
    place: str = ""


def hostile() -> list[Case]:
    """Everything that is to be refused, and what lies just within the bounds."""
    document = json.loads(sound()["engines"].text())
    return [*_no_documents(), *_versions(), *_by_definition(document), *_by_hand(document)]


# Bytes that are no document.

_TOO_LARGE = 8 << 20


def _no_documents() -> Iterator[Case]:
    text = json.dumps({"schema_version": 6, "created": "ä"}, ensure_ascii=False)
    broken: dict[str, bytes] = {
        "nothing": b"",
        "blanks": b" \n",
        "an open object": b"{",
        "the wrong bracket": b"{]",
        "a comma too many": b'{"a": 1,}',
        "a comma in a list too many": b"[1,]",
        "no colon": b'{"a" 1}',
        "a second value": b'{"a": 1} x',
        "two documents": b"{}{}",
        "half a word": b"nul",
        "single quotes": b"{'a': 1}",
        "a name without quotes": b"{a: 1}",
        "a comment": b"// a comment\n{}",
        "another comment": b"{/* a comment */}",
        "a control character in a text": b'"\x01"',
        "a line break in a text": b'"\n"',
        "an escape that is none": rb'"\x41"',
        "half an escape": rb'"\u00"',
        "a high surrogate alone": rb'{"a": "\ud800"}',
        "a low surrogate alone": rb'{"a": "\udc00x"}',
        "surrogates in the wrong order": rb'{"\udc00\ud800": 1}',
        "not a number": b'{"a": NaN}',
        "infinity": b'{"a": Infinity}',
        "minus infinity": b'{"a": -Infinity}',
        "a number beyond doubles": b'{"a": 1e400}',
        "an integer beyond doubles": b'{"a": ' + b"9" * 400 + b"}",
        "an integer of five thousand digits": b"[" + b"7" * 5000 + b"]",
        "a number that starts with zero": b'{"a": 01}',
        "a number with a plus": b'{"a": +1}',
        "a number without an integer part": b'{"a": .5}',
        "a number without a fraction": b'{"a": 5.}',
        "a number in hexadecimal": b'{"a": 0x10}',
        "minus alone": b"-",
        "UTF-16": text.encode("utf-16"),
        "UTF-16 without a mark": text.encode("utf-16-le"),
        "UTF-32": text.encode("utf-32"),
        "a byte order mark": b"\xef\xbb\xbf" + text.encode(),
        "Latin-1": text.encode("latin-1"),
        "an overlong character": b'"\xc0\xaf"',
        "a surrogate in UTF-8": b'"\xed\xa0\x80"',
        "a character beyond Unicode": b'"\xf4\x90\x80\x80"',
        "half a character": b'"\xc3"',
        "a zero byte behind": b'{"schema_version": 6}\x00',
        "a zero byte and more behind": b'{"schema_version": 6}\x00{',
        "a zero byte in a text": b'{"a": "\x00"}',
        "bytes": bytes(range(256)),
        "an archive": b"PK\x03\x04" + bytes(60),
    }
    for name, content in broken.items():
        yield Case(name, content, "invalid_json", "$")
    deep = {
        "a hundred thousand lists": b"[" * 100_000,
        "a hundred thousand objects": b'{"a":' * 100_000,
        "33 lists": b"[" * 33 + b"]" * 33,
        "33 levels in an object": b'{"schema_version": 6, "a": ' + b'[{"a":' * 16 + b"1" + b"}]" * 16 + b"}",
        "33 lists behind a syntax error": b"{]]" + b"[" * 35,
    }
    for name, content in deep.items():
        yield Case(name, content, "too_deep", "$")
    yield Case("32 lists", b"[" * 32 + b"]" * 32, "wrong_type", "$")
    yield Case("brackets in a text", b'"' + b"[" * 100 + b'\\"' + b"[" * 100 + b'"', "wrong_type", "$")
    yield Case("more than any manifest", b"[" + b" " * _TOO_LARGE, "too_large", "$")
    for name, text in {
        "a name twice": '{"a": 1, "a": 1}',
        "a name twice, within": '{"schema_version": 6, "x": [{"b": 1, "a": 1, "a": 2}]}',
        "a name twice, within what stands twice": '{"b": {"a": 1, "a": 2}, "b": 3}',
        "a name twice, once escaped": r'{"a": 1, "\u0061": 2}',
    }.items():
        yield Case(name, text.encode(), "duplicate_key", "$..a")
    yield Case("a strange name twice", rb'{"\n": 1, "\u000a": 2}', "duplicate_key", '$.["\\n"]')
    for text in ("[]", "3", "null", '"x"', "true", "1e300", "-0.0"):
        yield Case(f"the document {text}", text.encode(), "wrong_type", "$")
    yield Case("an empty object", b"{}", "missing_field", "$.created")


def _versions() -> Iterator[Case]:
    for version in (SCHEMA_VERSION - 1, SCHEMA_VERSION + 1, 1, -5, 0, 40, 10**30):
        content = f'{{"schema_version": {version}, "something": "new"}}'.encode()
        yield Case(f"version {version}", content, "wrong_version", "$.schema_version")


# From the definition.

# Fields whose bounds another field narrows: they are led across them, but not up to them.
_TOGETHER = {
    "layers", "heads", "kv_heads", "tile_size", "patch_size", "prune_after", "number", "of", "min", "opt", "max",
    "grid_pinpoints", "schema_version", "keep", "ratio",
}  # fmt: skip

Path = tuple[str | int, ...]


def _by_definition(document: Any) -> Iterator[Case]:
    for path, kind in _fields(inspect.type_info(Manifest), document, (), set()):
        place = at(path)
        yield _changed(document, path, _left_out, f"without {place}", "missing_field", place)
        for value in _of_other_types(kind):
            yield _set(document, path, value, "wrong_type", place)
        yield from _across_bounds(document, path, kind)
    for path in _records(inspect.type_info(Manifest), document, (), set()):
        yield _set(document, (*path, "a surprise"), 1, "unknown_field", at((*path, "a surprise")))


def _fields(
    kind: inspect.Type, value: Any, path: Path, seen: set[Any]
) -> Iterator[tuple[Path, inspect.Type]]:
    """Every field of every record once, where it first stands in the document, and what is in lists and tables."""
    kind = _only(kind)
    match kind:
        case inspect.DataclassType():
            for field in kind.fields:
                if (kind.cls, field.name) not in seen:
                    seen.add((kind.cls, field.name))
                    yield (*path, field.name), field.type
                yield from _fields(field.type, value[field.name], (*path, field.name), seen)
        case inspect.DictType():
            for number, name in enumerate(sorted(value)):
                if isinstance(kind.key_type, inspect.LiteralType):
                    yield (*path, name), kind.value_type
                if number == 0:
                    yield from _fields(kind.value_type, value[name], (*path, name), seen)
        case inspect.VarTupleType():
            for number, element in enumerate(value[:1]):
                yield from _fields(kind.item_type, element, (*path, number), seen)


def _records(kind: inspect.Type, value: Any, path: Path, seen: set[Any]) -> Iterator[Path]:
    kind = _only(kind)
    if isinstance(kind, inspect.DataclassType):
        if kind.cls not in seen:
            seen.add(kind.cls)
            yield path
        for field in kind.fields:
            yield from _records(field.type, value[field.name], (*path, field.name), seen)
    elif isinstance(kind, inspect.DictType):
        if isinstance(kind.key_type, inspect.LiteralType):
            yield path
        for name in sorted(value)[:1]:
            yield from _records(kind.value_type, value[name], (*path, name), seen)
    elif isinstance(kind, inspect.VarTupleType) and value:
        yield from _records(kind.item_type, value[0], (*path, 0), seen)


def _alternatives(kind: inspect.Type) -> list[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        return _alternatives(kind.type)
    if isinstance(kind, inspect.UnionType):
        return [each for member in kind.types for each in _alternatives(member)]
    return [kind]


def _only(kind: inspect.Type) -> inspect.Type:
    """What a value is where it is not null."""
    given = [each for each in _alternatives(kind) if not isinstance(each, inspect.NoneType)]
    return given[0]


# Python's types of the JSON values that a field of each kind takes.
_TAKEN: dict[type[inspect.Type], tuple[type, ...]] = {
    inspect.NoneType: (type(None),),
    inspect.BoolType: (bool,),
    inspect.IntType: (int,),
    inspect.FloatType: (int, float),
    inspect.StrType: (str,),
    inspect.VarTupleType: (list,),
    inspect.TupleType: (list,),
    inspect.DictType: (dict,),
    inspect.DataclassType: (dict,),
}


def _of_other_types(kind: inspect.Type) -> list[Any]:
    """Two values: of those that are mistaken for one another, where there are such."""
    taken: set[type] = set()
    for each in _alternatives(kind):
        is_choice = isinstance(each, inspect.LiteralType)
        taken.update((type(each.values[0]),) if is_choice else _TAKEN[type(each)])
    values: list[Any] = [True, 7.0, 7, "7", None, [1], {"a": 1}]
    return [value for value in values if type(value) not in taken][:2]


def _across_bounds(document: Any, path: Path, kind: inspect.Type) -> Iterator[Case]:
    only, place, free = _only(kind), at(path), path[-1] not in _TOGETHER
    match only:
        case inspect.IntType() | inspect.FloatType():
            least, most = only.gt if only.ge is None else only.ge, only.le
            assert least is not None and most is not None, place
            step = 1 if isinstance(only, inspect.IntType) else 0.25
            for value in (least - step, most + step, *([least] if only.gt is not None else []), 10**30):
                yield _set(document, path, value, "out_of_range", place)
            if free:
                yield _set(document, path, most, "", "")
                yield from [_set(document, path, least, "", "")] if only.ge is not None else ()
        case inspect.StrType():
            yield from _texts(document, path, only)
        case inspect.LiteralType():
            value = "surprise" if isinstance(only.values[0], str) else 7
            yield from (
                [_set(document, path, value, "unknown_value", place)] if path != ("schema_version",) else ()
            )
        case inspect.VarTupleType():
            if only.min_length:
                yield _set(document, path, [], "wrong_length", place)
            elif free:
                yield _set(document, path, [], "", "")
            if only.max_length:
                yield _set(document, path, [[1, 1]] * (only.max_length + 1), "wrong_length", place)
            yield _set(document, (*path, 0), None, "wrong_type", at((*path, 0)))
        case inspect.TupleType():
            for value in ([], [0], [0, 0, 0]):
                yield _set(document, path, value, "wrong_length", place)
            yield _set(document, (*path, 1), "7", "wrong_type", at((*path, 1)))
        case inspect.DictType():
            yield from _tables(document, path, only)


def _texts(document: Any, path: Path, kind: inspect.StrType) -> Iterator[Case]:
    place, fill = at(path), "ä" if kind.pattern is None else "0"
    if kind.min_length:
        yield _set(document, path, fill * (kind.min_length - 1), "wrong_length", place)
    assert kind.max_length is not None, place
    yield _set(document, path, fill * (kind.max_length + 1), "wrong_length", place)
    if kind.pattern is None:
        yield _set(document, path, fill * kind.max_length, "", "")
        yield _set(document, path, "a\n\0\u2028\U0001f600", "", "")
        return
    right = str(_value(document, path))
    for wrong in (f"{right[:-1]}\n", f"\x1f{right[1:]}", right[:2] + "\0" + right[3:]):
        yield _set(document, path, wrong, "wrong_format", place)


def _tables(document: Any, path: Path, kind: inspect.DictType) -> Iterator[Case]:
    if isinstance(kind.key_type, inspect.LiteralType):
        return
    value = next(iter(_value(document, path).values()))
    assert isinstance(kind.key_type, inspect.StrType)
    yield _set(document, (*path, ""), value, "wrong_length", at((*path, "")))
    yield _set(document, (*path, "k" * 1025), value, "wrong_length", at((*path, "k" * 1025)))
    yield _set(document, (*path, 'ein Wärter\'s "key"'), value, "", "")
    yield _set(document, (*path, "a"), None, "wrong_type", at((*path, "a")))
    if kind.key_type.pattern is not None:
        yield _set(document, (*path, "a\nb"), value, "wrong_format", at((*path, "a\nb")))


# By hand.


def _by_hand(document: Any) -> Iterator[Case]:
    wrong: list[tuple[Path, Any, str, Path]] = [
        (("model", "kv_heads"), 3, "inconsistent", ("model", "kv_heads")),
        (("model", "kv_heads"), 8, "inconsistent", ("model", "kv_heads")),
        (("model", "patch_size"), 57, "inconsistent", ("model", "patch_size")),
        (("model", "grid_pinpoints", 1), [55, 112], "inconsistent", ("model", "grid_pinpoints", 1)),
        (("model", "grid_pinpoints", 0), [112, 55], "inconsistent", ("model", "grid_pinpoints", 0)),
        (("model", "grid_pinpoints"), [[65536, 65536]] * 256, "inconsistent", ("model",)),
        (("pruning", "prune_after"), 8, "inconsistent", ("pruning", "prune_after")),
        (("pruning", "prune_after"), 99, "inconsistent", ("pruning", "prune_after")),
        (("quantization", "bits"), 8, "inconsistent", ("quantization", "block_size")),
        (("quantization", "block_size"), None, "inconsistent", ("quantization", "block_size")),
        (("budget", "keep"), 4, "inconsistent", ("budget",)),
        (("budget", "ratio"), 0.5, "inconsistent", ("budget",)),
        (("budget", "layer_average"), None, "inconsistent", ("budget",)),
        (("engines", 0, "part", "number"), 2, "inconsistent", ("engines", 0, "part", "number")),
        (("engines", 1, "part", "of"), 1, "inconsistent", ("engines", 1, "part", "number")),
        (("engines", 1, "part", "layers"), [4, 8], "inconsistent", ("engines", 1, "part", "layers")),
        (("engines", 1, "part", "layers"), [5, 4], "inconsistent", ("engines", 1, "part", "layers")),
        *(
            (("engines", 0, "profiles", 0, table, name, bound), value, "inconsistent",
             ("engines", 0, "profiles", 0, table, name))
            for table, name in (("shapes", "inputs_embeds"), ("values", "kept_length"))
            for bound, value in (("min", []), ("max", [1] * 9), ("min", [2001, 1, 1]), ("max", [0]))
        ),
        (("model", "grid_pinpoints", 0, 1), 65537, "out_of_range", ("model", "grid_pinpoints", 0, 1)),
        (("model", "eos_token_ids", 0), -1, "out_of_range", ("model", "eos_token_ids", 0)),
        (("model", "eos_token_ids"), [1, 2, True], "wrong_type", ("model", "eos_token_ids", 2)),
        (("graphs", "decoder", "inputs", 0, "dims", 1), -1, "out_of_range",
         ("graphs", "decoder", "inputs", 0, "dims", 1)),
        (("graphs", "decoder", "inputs", 0, "dims", 1), "", "wrong_length",
         ("graphs", "decoder", "inputs", 0, "dims", 1)),
        (("graphs", "decoder", "inputs", 0, "dims", 2), 256.0, "wrong_type",
         ("graphs", "decoder", "inputs", 0, "dims", 2)),
        (("graphs", "decoder", "inputs", 0, "dims", 2), 2**31, "out_of_range",
         ("graphs", "decoder", "inputs", 0, "dims", 2)),
        (("cpu_decoder", "passes"), ["skipped-cut", "surprise"], "unknown_value", ("cpu_decoder", "passes", 1)),
        (("files", "decoder.onnx", "size"), 1e19, "out_of_range", ("files", "decoder.onnx", "size")),
        (("quantization", "block_size"), 10**30, "unknown_value", ("quantization", "block_size")),
        (("pruning", "seed"), 2**63, "out_of_range", ("pruning", "seed")),
        (("created",), "2026-01-31T12:00:0٣Z", "wrong_format", ("created",)),
        (("created",), "2026-01-31 12:00:00Z", "wrong_format", ("created",)),
        (("files", "decoder.onnx", "sha256"), "0" * 63 + "A", "wrong_format", ("files", "decoder.onnx", "sha256")),
        (("files", "decoder.onnx", "sha256"), f"{0:064}\n", "wrong_length", ("files", "decoder.onnx", "sha256")),
        (("a\n\"'\x7f€",), 1, "unknown_field", ("a\n\"'\x7f€",)),
        (("s" * 61,), 1, "unknown_field", ("s" * 61,)),
    ]  # fmt: skip
    for path, value, code, place in wrong:
        yield _set(document, path, value, code, at(place))
    fine = copy.deepcopy(document)
    fine["model"] |= {"tile_size": 65536, "patch_size": 1, "grid_pinpoints": []}
    yield Case("more patches in a tile than memory holds", _bytes(fine), "inconsistent", "$.model")
    dense = copy.deepcopy(document)
    dense["pruning"] |= {"method": "none", "prune_after": 4096}
    yield Case("a dense model, whatever it says of the cut", _bytes(dense))
    first = copy.deepcopy(document)
    first["budget"], first["zebra"], first["apple"] = {"keep": 0}, 1, 1
    first["model"]["layers"] = 0
    yield Case(
        "many faults: the first as defined",
        _bytes(first),
        "out_of_range",
        "$.model.layers",
    )
    first["model"]["layers"] = 8
    yield Case("many faults: then the next", _bytes(first), "out_of_range", "$.budget.keep")
    first["budget"] = document["budget"]
    yield Case("many faults: unknown names last, by name", _bytes(first), "unknown_field", "$.apple")


def at(path: Path) -> str:
    """The place of a value, as messages write it."""
    place = "$"
    for key in path:
        if isinstance(key, int):
            place += f"[{key}]"
        elif re.fullmatch("[A-Za-z_][A-Za-z_0-9]{0,59}", key):
            place += f".{key}"
        else:
            text = json.dumps(key)
            place += f"[{text}]" if len(text) <= 60 else f'[{text[:60]}..."]'
    return place


def _value(document: Any, path: Path) -> Any:
    for key in path:
        document = document[key]
    return document


def _left_out(holder: Any, key: str | int) -> None:
    del holder[key]


def _changed(
    document: Any, path: Path, change: Callable[[Any, Any], None], name: str, code: str, place: str
) -> Case:
    changed = copy.deepcopy(document)
    change(_value(changed, path[:-1]), path[-1])
    return Case(name, _bytes(changed), code, place)


def _set(document: Any, path: Path, value: Any, code: str, place: str) -> Case:
    def change(holder: Any, key: Any) -> None:
        if isinstance(holder, list) and key == len(holder):
            holder.append(value)
        else:
            holder[key] = value

    shown = json.dumps(value)
    name = f"{at(path)} = {shown if len(shown) < 40 else f'{shown[:40]}...'}"
    return _changed(document, path, change, name, code, place)


def _bytes(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
