#include "tokenizer/characters.hpp"

#include <algorithm>
#include <array>
#include <iterator>

#include "tokenizer/character_tables.hpp"

namespace asap::detail::tokens {

namespace {

unsigned byte_at(std::string_view text, std::size_t at) { return static_cast<unsigned char>(text[at]); }

bool continues(std::string_view text, std::size_t at) { return (byte_at(text, at) & 0xC0u) == 0x80u; }

std::size_t size_by_first_byte(unsigned first) { return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4; }

struct Scan {
    std::size_t size;  // bytes of a character, or of what may not stand for one
    bool valid;
};

/// What stands at `at`, by the table of well-formed sequences in the Unicode standard.
Scan scan(std::string_view bytes, std::size_t at) {
    unsigned const first = byte_at(bytes, at);
    if (first < 0x80) return {1, true};
    if (first < 0xC2 || first > 0xF4) return {1, false};
    // The second byte alone rules out overlong forms, surrogates, and codes beyond U+10FFFF.
    unsigned const low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    unsigned const high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    std::size_t const size = size_by_first_byte(first);
    if (at + 1 == bytes.size() || byte_at(bytes, at + 1) < low || byte_at(bytes, at + 1) > high) return {1, false};
    for (std::size_t i = 2; i < size; ++i)
        if (at + i == bytes.size() || !continues(bytes, at + i)) return {i, false};
    return {size, true};
}

std::uint8_t search(char32_t code) {
    auto const* const found =
        std::upper_bound(std::begin(kCharacterRanges), std::end(kCharacterRanges), code,
                         [](char32_t value, CharacterRange const& range) { return value < range.first; });
    if (found == std::begin(kCharacterRanges)) return 0;
    CharacterRange const& range = *std::prev(found);
    return code <= range.last ? range.classes : std::uint8_t{0};
}

constexpr auto kAscii = [] {
    std::array<std::uint8_t, 128> classes{};
    for (CharacterRange const& range : kCharacterRanges)
        for (char32_t code = range.first; code <= range.last && code < classes.size(); ++code)
            classes[code] = range.classes;
    return classes;
}();

bool is_blank(char32_t code) { return (classes_of(code) & kWhiteSpace) != 0 || (code >= 0x1C && code <= 0x1F); }

}  // namespace

Character character_at(std::string_view text, std::size_t at) {
    unsigned const first = byte_at(text, at);
    if (first < 0x80) return {first, 1};
    std::size_t const size = size_by_first_byte(first);
    char32_t code = first & (0x7Fu >> size);
    for (std::size_t i = 1; i < size; ++i) code = (code << 6) | (byte_at(text, at + i) & 0x3Fu);
    return {code, size};
}

std::size_t start_before(std::string_view text, std::size_t at) {
    do --at;
    while (continues(text, at));
    return at;
}

std::size_t character_count(std::string_view text) {
    std::size_t count = 0;
    for (std::size_t at = 0; at < text.size(); ++at) count += !continues(text, at);
    return count;
}

void append(std::string& text, char32_t code) {
    auto const put = [&](char32_t byte) { text.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
    if (code < 0x80) return put(code);
    if (code < 0x800) {
        put(0xC0 | (code >> 6));
    } else if (code < 0x10000) {
        put(0xE0 | (code >> 12));
        put(0x80 | ((code >> 6) & 0x3F));
    } else {
        put(0xF0 | (code >> 18));
        put(0x80 | ((code >> 12) & 0x3F));
        put(0x80 | ((code >> 6) & 0x3F));
    }
    put(0x80 | (code & 0x3F));
}

std::uint8_t classes_of(char32_t code) { return code < kAscii.size() ? kAscii[code] : search(code); }

std::string_view left_stripped(std::string_view text) {
    while (!text.empty()) {
        Character const first = character_at(text, 0);
        if (!is_blank(first.code)) break;
        text.remove_prefix(first.size);
    }
    return text;
}

std::string_view stripped(std::string_view text) {
    text = left_stripped(text);
    while (!text.empty()) {
        std::size_t const last = start_before(text, text.size());
        if (!is_blank(character_at(text, last).code)) break;
        text.remove_suffix(text.size() - last);
    }
    return text;
}

std::size_t valid_length(std::string_view bytes) {
    std::size_t at = 0;
    while (at < bytes.size()) {
        Scan const found = scan(bytes, at);
        if (!found.valid) break;
        at += found.size;
    }
    return at;
}

std::string with_replacements(std::string_view bytes) {
    std::string text;
    text.reserve(bytes.size());
    for (std::size_t at = 0; at < bytes.size();) {
        Scan const found = scan(bytes, at);
        if (found.valid)
            text.append(bytes, at, found.size);
        else
            text += kReplacementCharacter;
        at += found.size;
    }
    return text;
}

}  // namespace asap::detail::tokens
