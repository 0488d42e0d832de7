/// Byte pair encoding: pieces of text to ids.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/definition.hpp"

namespace asap::detail::tokens {

struct Merge {
    std::uint32_t rank = 0;  // the lowest is merged first
    std::uint32_t id = 0;    // what the pair becomes
};

/// What pairs of tokens are merged to.
class MergeTable {
public:
    explicit MergeTable(std::size_t count);

    /// Replaces what was there.
    void put(std::uint32_t left, std::uint32_t right, Merge merge);

    Merge const* find(std::uint32_t left, std::uint32_t right) const;

private:
    struct Slot {
        std::uint64_t pair;
        Merge merge;
    };
    std::size_t slot_of(std::uint64_t pair) const;  // where it is or would be

    std::vector<Slot> slots_;  // a power of two, at most half of them taken
};

/// Thread-safe. Not copied, because it points into itself.
class Bpe {
public:
    /// Throws `Error` where merges or the unknown token are not in the vocabulary.
    explicit Bpe(Vocabulary const& vocabulary);
    Bpe(Bpe const&) = delete;
    Bpe& operator=(Bpe const&) = delete;

    /// Appends the ids of `piece`. Time grows as n log n of its length, never as the square.
    void encode(std::string_view piece, std::vector<std::int64_t>& ids) const;

    std::optional<std::uint32_t> id_of(std::string_view token) const;
    std::string const* token_of(std::uint32_t id) const;
    std::size_t size() const { return ids_.size(); }

private:
    void encode_word(std::string_view word, std::vector<std::int64_t>& ids) const;
    std::vector<std::uint32_t> characters_of(std::string_view piece) const;
    bool fall_back_to_bytes(std::string_view character, std::vector<std::uint32_t>& symbols) const;

    std::unordered_map<std::uint32_t, std::string> tokens_;
    std::unordered_map<std::string_view, std::uint32_t> ids_;  // keys lie in tokens_
    MergeTable merges_;
    std::array<std::optional<std::uint32_t>, 256> bytes_;  // <0x00> to <0xFF>
    std::optional<std::uint32_t> unk_;
    bool fuse_unk_, byte_fallback_, ignore_merges_;
    bool words_stand_apart_;  // no merge joins a character and a ▁ behind it
};

}  // namespace asap::detail::tokens
