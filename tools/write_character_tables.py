"""Write engines/cpp/src/tokenizer/character_tables.hpp: the classes of characters that tokenizers split text by.

    pip install unicodedata2 && python tools/write_character_tables.py

They are asked of the `tokenizers` package, character by character, because libraries of the system know another
version of Unicode than it does, and so would split some texts elsewhere.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import unicodedata2
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

HEADER = Path(__file__).parents[1] / "engines/cpp/src/tokenizer/character_tables.hpp"
CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
BLOCK = 4096  # characters asked at once

START = """\
/// Written by tools/write_character_tables.py: classes of characters as the `tokenizers` package has them.
#pragma once
// clang-format off

#include <cstdint>

namespace asap::detail::tokens {

struct CharacterRange {
    char32_t first, last;
    std::uint8_t classes;
};

inline constexpr std::uint8_t kLetter = 1, kNumber = 2, kWhiteSpace = 4, kWordPart = 8;

"""
CLASSES = """\
/// Ascending; what is in none of them has no class.
inline constexpr CharacterRange kCharacterRanges[] = {
"""
NEWER = """\
/// Characters that take part in normalization but are newer than what the `tokenizers` package knows of it.
inline constexpr char32_t kNewerThanNfc[][2] = {
"""
END = """
}  // namespace asap::detail::tokens
"""


def blocks() -> Iterator[str]:
    for start in range(0, len(CHARACTERS), BLOCK):
        yield "".join(CHARACTERS[start : start + BLOCK])


def matched(pattern: str) -> set[str]:
    """The characters of a class, as regular expressions of Split know it."""
    splitter = pre_tokenizers.Split(Regex(pattern), "removed")
    others = {c for block in blocks() for piece, _ in splitter.pre_tokenize_str(block) for c in piece}
    return set(CHARACTERS) - others


def words() -> set[str]:
    """The characters beside which a token of single words is none."""
    tokenizer = Tokenizer(models.BPE({"?": 0}, [], unk_token="?"))
    tokenizer.add_tokens([AddedToken("ZZ", single_word=True, normalized=False)])
    token = tokenizer.token_to_id("ZZ")
    found = set()
    for block in blocks():
        encodings = tokenizer.encode_batch_fast(["ZZ" + character for character in block])
        found.update(c for c, encoding in zip(block, encodings, strict=True) if token not in encoding.ids)
    return found


def newer() -> Iterator[str]:
    """Characters that Unicode reorders, composes or decomposes, and `tokenizers` does not."""
    nfc = normalizers.NFC().normalize_str

    def differs(text: str) -> bool:
        return bool(nfc(text) != unicodedata2.normalize("NFC", text))

    for character in CHARACTERS:
        marks = "\u0334", "\u0345"  # of the lowest and the highest class: one of them changes places with it
        if unicodedata2.combining(character) and any(differs("q" + mark + character) for mark in marks):
            yield character
        parts = unicodedata2.decomposition(character)
        if parts and not parts.startswith("<"):
            whole = [chr(int(part, 16)) for part in parts.split()]
            if len(whole) == 2 and differs("".join(whole)):
                yield from (character, whole[0])


def ranges(classes: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    start, last, previous = 0, 0, 0
    for character, value in zip(CHARACTERS, classes, strict=True):
        if value != previous or ord(character) != last + 1:
            if previous:
                yield start, last, previous
            start, previous = ord(character), value
        last = ord(character)
    if previous:
        yield start, last, previous


def table(entries: list[str], width: int = 105) -> str:
    lines, line = [], "   "
    for entry in entries:
        if len(line) + len(entry) + 2 > width:
            lines.append(line)
            line = "   "
        line += f" {entry},"
    return "\n".join([*lines, line, "};\n"])


def main() -> None:
    found: list[Callable[[], set[str]]] = [
        lambda: matched(r"\p{L}"),
        lambda: matched(r"\p{N}"),
        lambda: matched(r"\s"),
        words,
    ]
    sets = [find() for find in found]
    classes = [sum(1 << bit for bit, members in enumerate(sets) if c in members) for c in CHARACTERS]
    late = set(newer())
    text = START + CLASSES + table([f"{{{a:#x}, {b:#x}, {k}}}" for a, b, k in ranges(classes)])
    text += (
        "\n"
        + NEWER
        + table([f"{{{a:#x}, {b:#x}}}" for a, b, _ in ranges(int(c in late) for c in CHARACTERS)])
    )
    HEADER.write_text(text + END)


if __name__ == "__main__":
    main()
