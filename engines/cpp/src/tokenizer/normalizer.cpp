#include "tokenizer/normalizer.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <stdexcept>
#include <type_traits>

#include <utf8proc.h>

#include <asap/error.hpp>

#include "tokenizer/character_tables.hpp"
#include "tokenizer/characters.hpp"

namespace asap::detail::tokens {

namespace {

constexpr char32_t kFirstThatChanges = 0x300;  // of those in front of it, every text is in form C

using Codes = std::vector<std::int32_t>;

int combining_class(std::int32_t code) { return utf8proc_get_property(code)->combining_class; }

/// Puts the marks of each character into their canonical order. utf8proc's own sort would be quadratic.
void reorder(Codes& codes) {
    auto const is_mark = [](std::int32_t code) { return combining_class(code) != 0; };
    for (auto from = codes.begin(); from != codes.end();) {
        from = std::find_if(from, codes.end(), is_mark);
        auto const to = std::find_if_not(from, codes.end(), is_mark);
        std::stable_sort(from, to, [](auto a, auto b) { return combining_class(a) < combining_class(b); });
        from = to;
    }
}

/// Composes and appends to `text` what was gathered, and forgets it.
void flush(Codes& codes, std::string& text) {
    if (codes.empty()) return;
    reorder(codes);
    auto const options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    auto const left = utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()), options);
    if (left < 0) throw std::runtime_error(utf8proc_errmsg(left));
    for (utf8proc_ssize_t i = 0; i < left; ++i) append(text, static_cast<char32_t>(codes[static_cast<std::size_t>(i)]));
    codes.clear();
}

void decompose(char32_t code, Codes& codes) {
    std::int32_t parts[8];  // the longest canonical decomposition has four
    int last_boundclass = 0;
    auto const options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE);
    auto const count =
        utf8proc_decompose_char(static_cast<std::int32_t>(code), parts, static_cast<utf8proc_ssize_t>(std::size(parts)),
                                options, &last_boundclass);
    if (count < 0 || count > static_cast<utf8proc_ssize_t>(std::size(parts)))
        throw std::runtime_error("a character with a decomposition of unknown length");
    codes.insert(codes.end(), parts, parts + count);
}

bool is_newer(char32_t code) {
    auto const* const found = std::upper_bound(std::begin(kNewerThanNfc), std::end(kNewerThanNfc), code,
                                               [](char32_t value, auto const& range) { return value < range[0]; });
    return found != std::begin(kNewerThanNfc) && code <= (*std::prev(found))[1];
}

}  // namespace

std::string replaced(std::string_view text, Replace const& replace) {
    std::string result;
    std::size_t from = 0;
    for (std::size_t at = text.find(replace.from); at != std::string_view::npos; at = text.find(replace.from, from)) {
        result.append(text, from, at - from).append(replace.to);
        if (result.size() > kLongestText)
            throw Error("expected replacements that make a text of at most " + std::to_string(kLongestText) +
                        " bytes, found a longer one; ask in fewer words");
        from = at + replace.from.size();
    }
    return result.append(text, from);
}

std::string nfc(std::string_view text) {
    std::string result;
    result.reserve(text.size());
    Codes codes;
    auto const changes = [&](std::size_t at) {
        return at < text.size() && character_at(text, at).code >= kFirstThatChanges;
    };
    for (std::size_t at = 0, end = 0; at < text.size(); at = end) {
        Character const next = character_at(text, at);
        end = at + next.size;
        bool const early = next.code < kFirstThatChanges;
        if (early) flush(codes, result);  // it composes with nothing in front of it
        if (early && !changes(end)) {
            result.append(text, at, next.size);
        } else if (is_newer(next.code)) {  // to the tokenizers package a character without properties
            flush(codes, result);
            result.append(text, at, next.size);
        } else {
            decompose(next.code, codes);
        }
    }
    flush(codes, result);
    return result;
}

std::string normalized(std::string_view text, std::vector<NormalizerStep> const& steps) {
    std::string result(text);
    for (NormalizerStep const& step : steps) {
        if (result.empty()) break;
        if (auto const* const prepend = std::get_if<Prepend>(&step))
            result.insert(0, prepend->text);
        else if (auto const* const replace = std::get_if<Replace>(&step))
            result = replaced(result, *replace);
        else
            result = nfc(result);
    }
    return result;
}

}  // namespace asap::detail::tokens
