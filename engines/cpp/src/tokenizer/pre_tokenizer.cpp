#include "tokenizer/pre_tokenizer.hpp"

#include <string>

#include "tokenizer/byte_alphabet.hpp"
#include "tokenizer/characters.hpp"
#include "tokenizer/normalizer.hpp"

namespace asap::detail::tokens {

namespace {

bool starts_with(std::string_view text, std::string_view start) { return text.substr(0, start.size()) == start; }

/// Text with another character for spaces, one of them in front where the scheme asks for it.
std::string with_metaspaces(std::string_view text, bool is_start, Metaspace const& metaspace) {
    std::string changed = replaced(text, {" ", metaspace.replacement});
    bool const may_have_one = metaspace.prepend_scheme == PrependScheme::always ||
                              (metaspace.prepend_scheme == PrependScheme::first && is_start);
    if (may_have_one && !starts_with(changed, metaspace.replacement)) changed.insert(0, metaspace.replacement);
    return changed;
}

}  // namespace

PreTokenizer::PreTokenizer(std::vector<PreTokenizerStep> const& steps) {
    for (PreTokenizerStep const& step : steps) {
        if (auto const* const split = std::get_if<Split>(&step)) {
            parts_.emplace_back(split->pattern);
        } else if (auto const* const metaspace = std::get_if<Metaspace>(&step)) {
            parts_.emplace_back(*metaspace);
        } else if (auto const* const byte_level = std::get_if<ByteLevel>(&step)) {
            if (byte_level->add_prefix_space) parts_.emplace_back(PrefixSpace{});
            if (byte_level->use_regex) parts_.emplace_back(SplitPattern::gpt2);
            parts_.emplace_back(Bytes{});
        }
    }
}

void PreTokenizer::run(std::size_t index, std::string_view text, bool is_start, PieceCallback const& piece) const {
    if (text.empty()) return;
    if (index == parts_.size()) return piece(text);
    auto const next = [&](std::string_view part) {
        run(index + 1, part, is_start && part.data() == text.data(), piece);
    };
    Part const& part = parts_[index];
    if (auto const* const pattern = std::get_if<SplitPattern>(&part)) {
        tokens::split(*pattern, text, next);
    } else if (std::holds_alternative<PrefixSpace>(part)) {
        run(index + 1, starts_with(text, " ") ? std::string(text) : " " + std::string(text), is_start, piece);
    } else if (std::holds_alternative<Bytes>(part)) {
        run(index + 1, as_byte_characters(text), is_start, piece);
    } else {
        auto const& metaspace = std::get<Metaspace>(part);
        std::string const changed = with_metaspaces(text, is_start, metaspace);
        std::string_view rest = changed;
        while (!rest.empty()) {
            std::size_t const next_word = metaspace.split ? rest.find(metaspace.replacement, 1) : rest.npos;
            std::string_view const word = rest.substr(0, next_word);
            run(index + 1, word, is_start && word.data() == changed.data(), piece);
            rest.remove_prefix(word.size());
        }
    }
}

}  // namespace asap::detail::tokens
