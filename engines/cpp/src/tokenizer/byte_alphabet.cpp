#include "tokenizer/byte_alphabet.hpp"

#include <array>
#include <cstddef>

#include "tokenizer/characters.hpp"

namespace asap::detail::tokens {

namespace {

constexpr std::size_t kByteCount = 256, kCodeCount = 256 + 68;  // 68 bytes are not printed as they are

constexpr bool is_printed(char32_t byte) {
    return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr auto kCodes = [] {
    std::array<char32_t, kByteCount> made{};
    char32_t next = kByteCount;
    for (char32_t byte = 0; byte < kByteCount; ++byte) made[byte] = is_printed(byte) ? byte : next++;
    return made;
}();

constexpr auto kBytes = [] {
    std::array<int, kCodeCount> made{};
    for (int& byte : made) byte = -1;
    for (std::size_t byte = 0; byte < kByteCount; ++byte) made[kCodes[byte]] = static_cast<int>(byte);
    return made;
}();

}  // namespace

std::string as_byte_characters(std::string_view text) {
    std::string characters;
    characters.reserve(2 * text.size());
    for (char const byte : text) append(characters, kCodes[static_cast<unsigned char>(byte)]);
    return characters;
}

std::optional<std::string> as_bytes(std::string_view characters) {
    std::string found;
    for (std::size_t at = 0; at < characters.size();) {
        Character const next = character_at(characters, at);
        int const byte = next.code < kCodeCount ? kBytes[next.code] : -1;
        if (byte < 0) return std::nullopt;
        found.push_back(static_cast<char>(static_cast<unsigned char>(byte)));
        at += next.size;
    }
    return found;
}

}  // namespace asap::detail::tokens
