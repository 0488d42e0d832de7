/// Text while it is being written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <asap/request.hpp>

namespace asap::detail {

/// Turns tokens into pieces of text whose sum is the text of all of them, without white space in front.
///
/// A piece ends where a character ends: the bytes of one may come in several tokens. All tokens are decoded
/// each time, because what a token reads as depends on its neighbours. The text ends in front of the first of the
/// `stop` strings.
class TextStream {
public:
    using Decode = std::function<std::string(std::vector<std::int64_t> const& token_ids, bool special)>;

    /// `decode` gives UTF-8, `special` tokens left out or not: they may be stop strings. `on_text` may be empty; what
    /// it throws comes out as `FromCallback`.
    explicit TextStream(Decode decode, TextCallback on_text = {}, std::vector<std::string> stop = {});

    /// One more token; calls back where it completes a piece. Whether it completes a stop string, behind which nothing
    /// is to come.
    bool put(std::int64_t token_id);

    bool stopped() const { return stopped_; }

    /// Calls back with what is left, and returns the whole text.
    std::string close();

private:
    std::string text() const;
    std::size_t begun(std::string_view text) const;
    void tell(std::string_view text);

    Decode decode_;
    TextCallback on_text_;
    std::vector<std::string> stop_;
    bool stopped_ = false;
    std::vector<std::int64_t> token_ids_;
    std::size_t told_ = 0;  // characters
};

}  // namespace asap::detail
