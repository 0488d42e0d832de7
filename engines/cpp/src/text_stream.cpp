#include "text_stream.hpp"

#include <exception>
#include <string_view>
#include <utility>

#include "guard.hpp"
#include "tokenizer/characters.hpp"

namespace asap::detail {

namespace {

bool ends_with(std::string_view text, std::string_view end) {
    return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

/// `text` without its first `count` characters; empty where it has no more.
std::string_view behind(std::string_view text, std::size_t count) {
    while (count-- && !text.empty()) text.remove_prefix(tokens::character_at(text, 0).size);
    return text;
}

}  // namespace

TextStream::TextStream(Decode decode, TextCallback on_text)
    : decode_(std::move(decode)), on_text_(std::move(on_text)) {}

void TextStream::put(std::int64_t token_id) {
    token_ids_.push_back(token_id);
    if (!on_text_) return;
    std::string const now = text();
    if (!ends_with(now, tokens::kReplacementCharacter)) tell(now);
}

std::string TextStream::close() {
    std::string const whole = text();
    tell(whole);
    return whole;
}

std::string TextStream::text() const { return std::string(tokens::left_stripped(decode_(token_ids_))); }

void TextStream::tell(std::string const& text) {
    std::string_view const piece = behind(text, told_);
    if (!on_text_ || piece.empty()) return;
    try {
        on_text_(std::string(piece));
    } catch (...) {
        throw FromCallback{std::current_exception()};
    }
    told_ += tokens::character_count(piece);
}

}  // namespace asap::detail
