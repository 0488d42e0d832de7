/// UTF-8, and the classes of characters that tokenizers split text by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace asap::detail::tokens {

struct Character {
    char32_t code;
    std::size_t size;  // bytes
};

/// The character that starts at byte `at`, in front of the end. This and what follows trust `text` to be UTF-8.
Character character_at(std::string_view text, std::size_t at);

/// Where the character starts that ends at byte `at`, behind the start.
std::size_t start_before(std::string_view text, std::size_t at);

std::size_t character_count(std::string_view text);

void append(std::string& text, char32_t code);

/// A sum of the classes in character_tables.hpp.
std::uint8_t classes_of(char32_t code);

/// As Python's str.lstrip() and str.strip().
std::string_view left_stripped(std::string_view text);
std::string_view stripped(std::string_view text);

/// Bytes in front of the first that UTF-8 does not allow; all where there is none.
std::size_t valid_length(std::string_view bytes);

/// Stands for bytes that make no character.
inline constexpr std::string_view kReplacementCharacter = "\uFFFD";

/// UTF-8 made of any bytes: a U+FFFD for each longest start of a character that is not completed, and for
/// each byte that starts none, as Rust and Python have it.
std::string with_replacements(std::string_view bytes);

}  // namespace asap::detail::tokens
