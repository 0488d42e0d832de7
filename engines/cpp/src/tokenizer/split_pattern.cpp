#include "tokenizer/split_pattern.hpp"

#include <algorithm>
#include <cstdint>

#include "tokenizer/character_tables.hpp"
#include "tokenizer/characters.hpp"

namespace asap::detail::tokens {

namespace {

constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::uint8_t kOther = 0;  // [^\s\p{L}\p{N}]

std::uint8_t class_at(std::string_view text, std::size_t at) {
    return classes_of(character_at(text, at).code) & (kLetter | kNumber | kWhiteSpace);
}

bool is_line_end(char byte) { return byte == '\r' || byte == '\n'; }

/// Where the characters of a class end that start at `at`: `at` itself where there is none.
std::size_t run(std::string_view text, std::size_t at, std::uint8_t wanted, std::size_t most = std::string_view::npos) {
    for (; most > 0 && at < text.size() && class_at(text, at) == wanted; --most) at += character_at(text, at).size;
    return at;
}

char lower(char byte) { return 'A' <= byte && byte <= 'Z' ? static_cast<char>(byte | 0x20) : byte; }

/// 's|'t|'re|'ve|'m|'ll|'d, in any case where the pattern says so: that of an s is also the long s.
std::size_t contraction(std::string_view text, bool any_case) {
    for (std::string_view const known : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
        std::string_view const start = text.substr(0, known.size());
        bool const same = any_case ? std::equal(known.begin(), known.end(), start.begin(), start.end(),
                                                [](char one, char other) { return one == lower(other); })
                                   : start == known;
        if (same) return known.size();
    }
    std::string_view const long_s = "'\u017F";
    return any_case && text.substr(0, long_s.size()) == long_s ? long_s.size() : 0;
}

/// Of white space at the start of a text.
std::size_t white_space(std::string_view text, bool splits_lines) {
    std::size_t const end = run(text, 0, kWhiteSpace);
    if (splits_lines) {  // \s*[\r\n]+
        std::size_t const last = text.substr(0, end).find_last_of("\r\n");
        if (last != std::string_view::npos) return last + 1;
    }
    if (end == text.size()) return end;
    std::size_t const but_one = start_before(text, end);
    return but_one > 0 ? but_one : end;  // \s+(?!\S)|\s+
}

/// The size of the first piece. What an alternative may start with belongs to none of the classes that it goes on
/// with, so none has to be tried with less than the most that it can take; only \s has to give back.
std::size_t first_piece(SplitPattern pattern, std::string_view text) {
    bool const is_gpt2 = pattern == SplitPattern::gpt2;
    if (std::size_t const end = contraction(text, !is_gpt2)) return end;
    std::size_t const behind_space = text.front() == ' ' ? 1 : 0;
    std::size_t const behind_any =
        is_line_end(text.front()) || (class_at(text, 0) & (kLetter | kNumber)) ? 0 : character_at(text, 0).size;

    std::size_t start = is_gpt2 ? behind_space : behind_any;
    if (std::size_t const end = run(text, start, kLetter); end > start) return end;

    start = is_gpt2 ? behind_space : 0;
    std::size_t const most = is_gpt2 ? std::string_view::npos : pattern == SplitPattern::llama3 ? 3 : 1;
    if (std::size_t const end = run(text, start, kNumber, most); end > start) return end;

    if (std::size_t end = run(text, behind_space, kOther); end > behind_space) {
        while (!is_gpt2 && end < text.size() && is_line_end(text[end])) ++end;
        return end;
    }
    return white_space(text, !is_gpt2);
}

}  // namespace

std::optional<SplitPattern> split_pattern(std::string_view expression) {
    if (expression == kGpt2) return SplitPattern::gpt2;
    if (expression == kLlama3) return SplitPattern::llama3;
    if (expression == kQwen2) return SplitPattern::qwen2;
    return std::nullopt;
}

void split(SplitPattern pattern, std::string_view text, std::function<void(std::string_view)> const& piece) {
    while (!text.empty()) {
        std::size_t const size = first_piece(pattern, text);
        piece(text.substr(0, size));
        text.remove_prefix(size);
    }
}

}  // namespace asap::detail::tokens
