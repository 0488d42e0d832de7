/// Tokens that stand beside the model's vocabulary: they are found in the text before anything else.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "tokenizer/bpe.hpp"
#include "tokenizer/definition.hpp"

namespace asap::detail::tokens {

/// Finds the longest of many words at a place.
class Trie {
public:
    /// False where the word is there already.
    bool add(std::string_view word, std::uint32_t value);

    struct Found {
        std::uint32_t value;
        std::size_t size;  // of the word; 0 where none was found
    };
    Found longest_at(std::string_view text, std::size_t at) const;
    bool empty() const { return next_.empty(); }

private:
    static constexpr std::uint32_t kNothing = ~std::uint32_t{0};

    std::unordered_map<std::uint64_t, std::uint32_t> next_;  // node and byte to node
    std::vector<std::uint32_t> values_ = {kNothing};         // of nodes
    std::array<bool, 256> starts_{};                         // bytes that words start with
};

/// Thread-safe. Not copied, because it points into itself.
class AddedTokens {
public:
    /// Throws `Error` where ids are not those that follow from the vocabulary, or two tokens look the same.
    AddedTokens(std::vector<AddedToken> const& tokens, std::vector<NormalizerStep> const& normalizer, Bpe const& model);
    AddedTokens(AddedTokens const&) = delete;
    AddedTokens& operator=(AddedTokens const&) = delete;

    /// Called with each piece in order: an added token, or text between (null).
    using Callback = std::function<void(std::string_view piece, AddedToken const* token)>;
    void split_raw(std::string_view text, Callback const& callback) const { split(raw_, text, callback); }
    void split_normalized(std::string_view text, Callback const& callback) const { split(normalized_, text, callback); }

    AddedToken const* find(std::string_view content) const;

    /// What decoding starts from: the token as normalization spells it. Null where `id` is none of these.
    std::string const* token_of(std::uint32_t id) const;
    bool is_special(std::string const& token) const { return special_.count(token) != 0; }

private:
    void split(Trie const& words, std::string_view text, Callback const& callback) const;

    std::unordered_map<std::uint32_t, AddedToken> tokens_;
    std::unordered_map<std::uint32_t, std::string> spelled_;
    std::unordered_map<std::string_view, std::uint32_t> ids_;  // keys lie in tokens_
    std::unordered_set<std::string> special_;
    Trie raw_, normalized_;
};

}  // namespace asap::detail::tokens
