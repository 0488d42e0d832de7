/// Regular expressions, as far as tokenizers split text with them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

namespace asap::detail::tokens {

class CharacterSet {
public:
    void add(char32_t first, char32_t last) { ranges_.emplace_back(first, last); }
    void add_classes(std::uint8_t classes) { classes_ = static_cast<std::uint8_t>(classes_ | classes); }
    void negate() { negated_ = true; }
    bool contains(char32_t code) const;

private:
    std::vector<std::pair<char32_t, char32_t>> ranges_;
    std::uint8_t classes_ = 0;
    bool negated_ = false;
};

/// A pattern that splits text as in Oniguruma, the library that Hugging Face's tokenizers use.
///
/// It knows characters, `\r` `\n` `\t`, `\s` `\S` `\p{L}` `\p{N}`, sets in brackets, the greedy `?` `*` `+`
/// `{m,n}` behind any of these, groups `(?:` and `(?i:` that may be optional, alternatives, and `(?!` before
/// a single set. Of what is in
/// `(?i:` only ASCII is known. Thread-safe.
class SplitPattern {
public:
    /// Throws `Error` that names what it does not know.
    explicit SplitPattern(std::string_view expression);

    /// Calls back with each match and each piece between two, in order. Throws `Error` where a pattern takes
    /// more time than any that is made for this.
    void split(std::string_view text, std::function<void(std::string_view)> const& piece) const;

    struct Item {
        CharacterSet set;
        std::size_t min = 1, max = 1;  // how many characters of the set; as many as possible
        bool forbidden = false;        // (?! : nothing is taken, and none of the set may follow
    };
    using Sequence = std::vector<Item>;

private:
    std::vector<Sequence> alternatives_;  // groups written out, in order of preference
};

}  // namespace asap::detail::tokens
