#include "tokenizer/decoder.hpp"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>

#include <asap/error.hpp>

#include "tokenizer/byte_alphabet.hpp"
#include "tokenizer/characters.hpp"
#include "tokenizer/normalizer.hpp"

namespace asap::detail::tokens {

namespace {

using Tokens = std::vector<std::string>;

std::string joined(Tokens const& tokens, std::string_view between = "") {
    std::string text;
    for (std::string const& token : tokens) {
        if (&token != &tokens.front()) text += between;
        text += token;
    }
    return text;
}

void take(Replace const& replace, Tokens& tokens) {
    for (std::string& token : tokens) token = replaced(token, replace);
}

int hexadecimal(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
    return -1;
}

/// The byte that a token like <0x0A> stands for.
std::optional<char> byte_of(std::string const& token) {
    if (token.size() != 6 || token.compare(0, 3, "<0x") != 0 || token[5] != '>') return std::nullopt;
    // Rust's number reader takes a plus sign in front of a number.
    int const high = token[3] == '+' ? 0 : hexadecimal(token[3]), low = hexadecimal(token[4]);
    if (high < 0 || low < 0) return std::nullopt;
    return static_cast<char>(static_cast<unsigned char>(high * 16 + low));
}

void take(ByteFallback, Tokens& tokens) {
    Tokens changed;
    std::string bytes;
    auto const flush = [&] {
        if (bytes.empty()) return;
        if (valid_length(bytes) == bytes.size())
            changed.push_back(bytes);
        else
            changed.insert(changed.end(), bytes.size(), std::string(kReplacementCharacter));
        bytes.clear();
    };
    for (std::string& token : tokens) {
        if (auto const byte = byte_of(token)) {
            bytes.push_back(*byte);
        } else {
            flush();
            changed.push_back(std::move(token));
        }
    }
    flush();
    tokens = std::move(changed);
}

void take(Fuse, Tokens& tokens) { tokens = {joined(tokens)}; }

void take(Strip const& strip, Tokens& tokens) {
    std::size_t const size = strip.content.size();
    for (std::string& token : tokens) {
        std::size_t start = 0, stop = token.size();
        for (std::size_t i = 0; i < strip.start && token.compare(start, size, strip.content) == 0; ++i) start += size;
        for (std::size_t i = 0; i < strip.stop && stop >= start + size; ++i) {
            if (token.compare(stop - size, size, strip.content) != 0) break;
            stop -= size;
        }
        token = token.substr(start, stop - start);
    }
}

void take(ByteLevel const&, Tokens& tokens) {
    std::string bytes;
    for (std::string const& token : tokens) bytes += as_bytes(token).value_or(token);
    tokens = {with_replacements(bytes)};
}

void take(Metaspace const& metaspace, Tokens& tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        bool const drops = i == 0 && metaspace.prepend_scheme != PrependScheme::never;
        tokens[i] = replaced(tokens[i], {metaspace.replacement, drops ? "" : " "});
    }
}

}  // namespace

std::string decoded(Tokens tokens, std::optional<std::vector<DecoderStep>> const& steps) {
    if (!steps) return joined(tokens, " ");
    for (DecoderStep const& step : *steps) std::visit([&](auto const& known) { take(known, tokens); }, step);
    return joined(tokens);
}

}  // namespace asap::detail::tokens
