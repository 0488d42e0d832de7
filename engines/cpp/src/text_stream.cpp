#include "text_stream.hpp"

#include <algorithm>
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

TextStream::TextStream(Decode decode, TextCallback on_text, std::vector<std::string> stop)
    : decode_(std::move(decode)), on_text_(std::move(on_text)), stop_(std::move(stop)) {}

bool TextStream::put(std::int64_t token_id) {
    token_ids_.push_back(token_id);
    if (!stop_.empty()) {
        std::string const written = decode_(token_ids_, true);
        auto const is_written = [&](std::string const& stop) { return written.find(stop) != std::string::npos; };
        stopped_ = std::any_of(stop_.begin(), stop_.end(), is_written);
    }
    if (stopped_ || !on_text_) return stopped_;
    std::string const now = text();
    if (!ends_with(now, tokens::kReplacementCharacter)) tell(std::string_view(now).substr(0, now.size() - begun(now)));
    return false;
}

std::string TextStream::close() {
    std::string const whole = text();
    tell(whole);
    return whole;
}

std::string TextStream::text() const {
    std::string text(tokens::left_stripped(decode_(token_ids_, false)));
    std::size_t end = text.size();
    if (stopped_)
        for (std::string const& stop : stop_) end = std::min(end, text.find(stop));
    return text.substr(0, end);
}

/// The bytes of the longest end of `text` with which a stop string begins.
std::size_t TextStream::begun(std::string_view text) const {
    std::size_t longest = 0;
    for (std::string const& stop : stop_)
        for (std::size_t size = std::min(stop.size() - 1, text.size()); size > longest; --size)
            if (ends_with(text, std::string_view(stop).substr(0, size))) longest = size;
    return longest;
}

void TextStream::tell(std::string_view text) {
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
