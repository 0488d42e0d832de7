"""Whether the C++ runtime reads a tokenizer.json, so that an export can say so.

The table is that of ``definition.cpp`` and ``split_pattern.cpp`` in ``engines/cpp/src/tokenizer``, in their words.
What ``tests/cpp/fixtures/tokenizer.py`` is told here, the C++ tests expect. What only a damaged file has is left
to C++.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["SPLIT_PATTERNS", "refused_by_cpp"]

# By section of the file: the types of its steps, and the key under which a Sequence has them.
_STEPS = {
    "normalizer": (("NFC", "Prepend", "Replace", "Sequence"), "normalizers"),
    "pre_tokenizer": (("ByteLevel", "Metaspace", "Sequence", "Split"), "pretokenizers"),
    "post_processor": (("ByteLevel", "Sequence", "TemplateProcessing"), "processors"),
    "decoder": (
        ("ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Sequence", "Strip"),
        "decoders",
    ),
}
_ONCE = {("pre_tokenizer", "ByteLevel"), ("post_processor", "TemplateProcessing")}
_UNUSED = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")  # options of the model, BPE

_OF_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLIT_PATTERNS = {
    "GPT-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "Llama 3": _OF_LLAMA3,
    "Qwen2": _OF_LLAMA3.replace("{1,3}", ""),
}


def refused_by_cpp(tokenizer_json: str) -> str | None:
    """What the C++ runtime expected and found where it refuses a tokenizer; None where it does not."""
    return next(_refusals(json.loads(tokenizer_json)), None)


def _refusals(file: dict[str, Any]) -> Iterator[str]:
    """In the order in which C++ comes upon them."""
    for section, (known, key) in _STEPS.items():
        found = set()
        for where, step in _steps(file[section], section, key):
            kind = step["type"]
            if kind not in known:
                yield _refusal(_either(known), where, kind)
            if kind in found and (section, kind) in _ONCE:
                yield _refusal(f"one {kind}", where, "a second")
            found.add(kind)
            if kind == "Replace" and "String" not in step["pattern"]:
                yield _refusal("text", f"{where}.pattern.String", "null")
            if kind == "Split":
                yield from _refusals_of_split(step, where)
    model = file["model"]
    if model["type"] != "BPE":
        yield _refusal("BPE", "model", model["type"])
    for option in _UNUSED:
        if model[option]:
            yield _refusal("nothing", f"model.{option}", json.dumps(model[option], ensure_ascii=False))
    steps = _steps(file["pre_tokenizer"], "pre_tokenizer", "pretokenizers")
    if file["normalizer"] and any(step.get("prepend_scheme") == "first" for _, step in steps):
        first = "nothing before a Metaspace with the prepend_scheme first"
        yield _refusal(first, "normalizer", "a normalizer")


def _refusals_of_split(step: dict[str, Any], where: str) -> Iterator[str]:
    if step["behavior"] != "Isolated":
        yield _refusal("Isolated", f"{where}.behavior", step["behavior"])
    pattern = step["pattern"].get("Regex")
    if pattern is None:
        yield _refusal("text", f"{where}.pattern.Regex", "null")
    elif pattern not in SPLIT_PATTERNS.values():
        yield _refusal(f"the pattern of {_either(SPLIT_PATTERNS)}", f"{where}.pattern.Regex", "another")


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


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"
