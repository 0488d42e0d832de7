/// Text in pieces that no token crosses.
#pragma once

#include <cstddef>
#include <functional>
#include <string_view>
#include <variant>
#include <vector>

#include "tokenizer/definition.hpp"
#include "tokenizer/split_pattern.hpp"

namespace asap::detail::tokens {

/// Called with one piece after the other.
using PieceCallback = std::function<void(std::string_view)>;

/// Thread-safe.
class PreTokenizer {
public:
    explicit PreTokenizer(std::vector<PreTokenizerStep> const& steps);

    /// Splits what lies between two added tokens. `is_start` says whether it starts the whole text.
    void split(std::string_view text, bool is_start, PieceCallback const& piece) const {
        run(0, text, is_start, piece);
    }

private:
    /// What steps are made of: a ByteLevel, for instance, of a pattern and characters for bytes.
    struct PrefixSpace {};
    struct Bytes {};
    using Part = std::variant<SplitPattern, PrefixSpace, Bytes, Metaspace>;

    /// Takes `text` through the parts from `index` on.
    void run(std::size_t index, std::string_view text, bool is_start, PieceCallback const& piece) const;

    std::vector<Part> parts_;
};

}  // namespace asap::detail::tokens
