"""Whether the C++ runtime reads a tokenizer.json, so that an export can say so.

The rules are those of ``definition.cpp`` and ``split_pattern.cpp`` in ``engines/cpp/src/tokenizer``, in their
words: which components there are, and what patterns are written with. What ``tests/cpp/fixtures/tokenizer.py`` is
told here, the C++ tests expect. What only a damaged file has is left to C++.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["refused_by_cpp"]

# Sections of the file: the key of a Sequence's steps, and the types that are known, of "one ..." a single step.
_SECTIONS = {
    "normalizer": ("normalizers", "NFC, Prepend, Replace or Sequence"),
    "pre_tokenizer": ("pretokenizers", "one ByteLevel, Metaspace, Sequence or Split"),
    "post_processor": ("processors", "ByteLevel, Sequence or one TemplateProcessing"),
    "decoder": ("decoders", "ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Sequence or Strip"),
}
_MATCHED = {"Replace": "String", "Split": "Regex"}  # and not the other

_ESCAPED = r"""\\[rnt^$.()\[\]{}?*+|\-&/\\'" ]"""
_CLASS = r"\\s|\\p\{[LN]\}"
_IN_SET = rf"(?:{_ESCAPED}|[^\\\[\]\-&^])"
_SET = rf"\[\^?(?:{_CLASS}|{_IN_SET}(?:-{_IN_SET})?)+\]"
_SINGLE = rf"(?:{_SET}|{_CLASS}|\\S|{_ESCAPED}|[^\\^$.()\[\]{{}}?*+|])"
_IN_ANY_CASE = rf"(?:{_ESCAPED}|[^\\^$.()\[\]{{}}?*+|\x80-\U0010ffff])"
_END = r"(?![?*+{])"  # no repetition of a repetition, so none that is lazy or possessive
_TIMES = rf"(?:(?:[?*+]|\{{\d+(?:,\d*)?\}}){_END})?"
_PATTERN = re.compile(
    rf"(?:{_SINGLE}{_TIMES}|\(\?:|\)\??{_END}|\(\?i:(?:{_IN_ANY_CASE}{_TIMES}|\|)*\)\??{_END}|\(\?!{_SINGLE}\)|\|)*"
)


def refused_by_cpp(tokenizer_json: str) -> str | None:
    """What the C++ runtime expected and found where it refuses a tokenizer; None where it does not."""
    return next(_refusals(json.loads(tokenizer_json)), None)


def _refusals(file: dict[str, Any]) -> Iterator[str]:
    """In the order in which C++ comes upon them."""
    patterns = []
    for section, (key, known) in _SECTIONS.items():
        found: list[str] = []
        for where, step in _steps(file[section], section, key):
            kind = step["type"]
            if kind not in re.findall(r"\w+", known) or (f"one {kind}" in known and kind in found):
                yield _refusal(known, where, kind)
            found.append(kind)
            if kind == "Split" and step["behavior"] != "Isolated":
                yield _refusal("Isolated", f"{where}.behavior", step["behavior"])
            if kind in _MATCHED and _MATCHED[kind] not in step["pattern"]:
                yield _refusal("text", f"{where}.pattern.{_MATCHED[kind]}", "null")
            if kind == "Split":
                patterns.append(step["pattern"]["Regex"])
    model = file["model"]
    if model["type"] != "BPE":
        yield _refusal("BPE", "model", model["type"])
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model[option]:
            yield _refusal("nothing", f"model.{option}", json.dumps(model[option], ensure_ascii=False))
    if file["normalizer"] and any(
        step.get("prepend_scheme") == "first"
        for _, step in _steps(file["pre_tokenizer"], "pre_tokenizer", "pretokenizers")
    ):
        yield _refusal(
            "nothing before a Metaspace with the prepend_scheme first", "normalizer", "a normalizer"
        )
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            shown = pattern if len(pattern) <= 200 else f"{pattern[:200]}..."
            yield f'expected a pattern that this runtime knows, found "{shown}"'


def _steps(component: dict[str, Any] | None, where: str, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each step of a component and its place, the steps of sequences in theirs."""
    if component is None:
        return
    if component["type"] != "Sequence":
        yield where, component
        return
    for index, step in enumerate(component[key]):
        yield from _steps(step, f"{where}.{key}[{index}]", key)


def _refusal(expected: str, where: str, found: str) -> str:
    return f"expected {expected} as {where}, found {found}"
