#include "tokenizer/bpe.hpp"

#include <algorithm>
#include <limits>

#include <asap/error.hpp>

#include "tokenizer/characters.hpp"

namespace asap::detail::tokens {

namespace {

constexpr std::uint64_t kNoPair = std::numeric_limits<std::uint64_t>::max();  // ids end below 2^31
constexpr std::size_t kNoSymbol = std::numeric_limits<std::size_t>::max();

constexpr std::string_view kWordStart = "\u2581";  // a space, in vocabularies made by SentencePiece

/// Where the first word of `text` ends: in front of a ▁ behind any other character.
std::size_t word_size(std::string_view text) {
    std::size_t at = 0;
    while (text.substr(at, kWordStart.size()) == kWordStart) at += kWordStart.size();
    return std::min(text.find(kWordStart, at), text.size());
}

std::uint64_t pair_of(std::uint32_t left, std::uint32_t right) { return std::uint64_t{left} << 32 | right; }

/// Merges the symbols of a piece, pair by pair, in the order of ranks, and of places among equal ranks.
class Merger {
public:
    Merger(std::vector<std::uint32_t> const& ids, MergeTable const& merges) : merges_(merges), symbols_(ids.size()) {
        for (std::size_t i = 0; i < ids.size(); ++i)
            symbols_[i] = {ids[i], i == 0 ? kNoSymbol : i - 1, i + 1 == ids.size() ? kNoSymbol : i + 1};
        for (std::size_t i = 0; i + 1 < ids.size(); ++i)
            if (Merge const* const merge = merges_.find(ids[i], ids[i + 1])) queue_.push_back({*merge, i});
        std::make_heap(queue_.begin(), queue_.end());
    }

    void run() {
        while (!queue_.empty()) {
            std::pop_heap(queue_.begin(), queue_.end());
            Candidate const next = queue_.back();
            queue_.pop_back();
            if (still_holds(next)) merge(next);
        }
    }

    void append_to(std::vector<std::int64_t>& ids) const {
        for (std::size_t i = 0; i < symbols_.size(); i = symbols_[i].next) {
            ids.push_back(symbols_[i].id);
            if (symbols_[i].next == kNoSymbol) break;
        }
    }

private:
    struct Symbol {
        std::uint32_t id = 0;
        std::size_t previous = kNoSymbol, next = kNoSymbol;
        bool alive = true;
    };

    struct Candidate {
        Merge merge;
        std::size_t left;

        bool operator<(Candidate const& other) const {  // the standard heap has the greatest on top
            return merge.rank != other.merge.rank ? merge.rank > other.merge.rank : left > other.left;
        }
    };

    /// Whether the pair that a candidate was made for is still there, and neither part was merged since.
    bool still_holds(Candidate const& candidate) const {
        Symbol const& left = symbols_[candidate.left];
        if (!left.alive || left.next == kNoSymbol) return false;
        Merge const* const now = merges_.find(left.id, symbols_[left.next].id);
        return now && now->id == candidate.merge.id;
    }

    void merge(Candidate const& candidate) {
        Symbol& left = symbols_[candidate.left];
        Symbol& right = symbols_[left.next];
        left.id = candidate.merge.id;
        left.next = right.next;
        right.alive = false;
        if (left.next != kNoSymbol) symbols_[left.next].previous = candidate.left;
        if (left.previous != kNoSymbol) consider(left.previous);
        if (left.next != kNoSymbol) consider(candidate.left);
    }

    void consider(std::size_t left) {
        Merge const* const merge = merges_.find(symbols_[left].id, symbols_[symbols_[left].next].id);
        if (!merge) return;
        queue_.push_back({*merge, left});
        std::push_heap(queue_.begin(), queue_.end());
    }

    MergeTable const& merges_;
    std::vector<Symbol> symbols_;
    std::vector<Candidate> queue_;
};

std::uint32_t known(std::unordered_map<std::string_view, std::uint32_t> const& ids, std::string const& token) {
    auto const found = ids.find(token);
    if (found == ids.end())
        throw Error("tokenizer.json: expected the tokens of all merges and unk_token in the vocabulary, found \"" +
                    with_replacements(token.substr(0, 80)) + "\", which is not; export it again");
    return found->second;
}

}  // namespace

MergeTable::MergeTable(std::size_t count) {
    std::size_t size = 2;
    while (size < 2 * count) size *= 2;
    slots_.assign(size, {kNoPair, {}});
}

std::size_t MergeTable::slot_of(std::uint64_t pair) const {
    std::uint64_t hash = pair * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 32;
    std::size_t slot = static_cast<std::size_t>(hash) & (slots_.size() - 1);
    while (slots_[slot].pair != pair && slots_[slot].pair != kNoPair) slot = (slot + 1) & (slots_.size() - 1);
    return slot;
}

void MergeTable::put(std::uint32_t left, std::uint32_t right, Merge merge) {
    std::uint64_t const pair = pair_of(left, right);
    slots_[slot_of(pair)] = {pair, merge};
}

Merge const* MergeTable::find(std::uint32_t left, std::uint32_t right) const {
    Slot const& slot = slots_[slot_of(pair_of(left, right))];
    return slot.pair == kNoPair ? nullptr : &slot.merge;
}

Bpe::Bpe(Vocabulary const& vocabulary)
    : merges_(vocabulary.merges.size()),
      fuse_unk_(vocabulary.fuse_unk),
      byte_fallback_(vocabulary.byte_fallback),
      ignore_merges_(vocabulary.ignore_merges),
      words_stand_apart_(false) {
    tokens_.reserve(vocabulary.tokens.size());
    ids_.max_load_factor(0.5f);  // looking tokens up takes the most time
    ids_.reserve(vocabulary.tokens.size());
    for (auto const& [token, id] : vocabulary.tokens) ids_.emplace(tokens_.emplace(id, token).first->second, id);
    words_stand_apart_ = id_of(kWordStart).has_value();
    std::uint32_t rank = 0;
    for (auto const& [left, right] : vocabulary.merges) {
        std::string const both = left + right;
        merges_.put(known(ids_, left), known(ids_, right), {rank++, known(ids_, both)});
        words_stand_apart_ = words_stand_apart_ && word_size(both) == both.size();
    }
    for (std::size_t byte = 0; byte < bytes_.size(); ++byte) {
        char const* const digits = "0123456789ABCDEF";
        bytes_[byte] = id_of(std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">");
    }
    if (vocabulary.unk_token) unk_ = known(ids_, *vocabulary.unk_token);
}

std::optional<std::uint32_t> Bpe::id_of(std::string_view token) const {
    auto const found = ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

std::string const* Bpe::token_of(std::uint32_t id) const {
    auto const found = tokens_.find(id);
    return found == tokens_.end() ? nullptr : &found->second;
}

bool Bpe::fall_back_to_bytes(std::string_view character, std::vector<std::uint32_t>& symbols) const {
    auto const byte = [&](char value) { return bytes_[static_cast<unsigned char>(value)]; };
    if (!byte_fallback_ || !std::all_of(character.begin(), character.end(), byte)) return false;
    for (char const value : character) symbols.push_back(*byte(value));
    return true;
}

std::vector<std::uint32_t> Bpe::characters_of(std::string_view piece) const {
    std::vector<std::uint32_t> symbols;
    symbols.reserve(piece.size());
    bool unknown = false;  // one is kept back, because more may be fused with it
    for (std::size_t at = 0; at < piece.size();) {
        std::string_view const character = piece.substr(at, character_at(piece, at).size);
        at += character.size();
        if (auto const id = id_of(character)) {
            if (unknown) symbols.push_back(*unk_);
            unknown = false;
            symbols.push_back(*id);
        } else if (!fall_back_to_bytes(character, symbols) && unk_) {  // without any of these it is left out
            if (unknown && !fuse_unk_) symbols.push_back(*unk_);
            unknown = true;
        }
    }
    if (unknown) symbols.push_back(*unk_);
    return symbols;
}

void Bpe::encode(std::string_view piece, std::vector<std::int64_t>& ids) const {
    if (ignore_merges_)
        if (auto const whole = id_of(piece)) return ids.push_back(*whole);
    // Llama's whole text is one piece, but what is merged in one word changes nothing in another.
    while (words_stand_apart_ && !piece.empty()) {
        std::size_t const size = word_size(piece);
        encode_word(piece.substr(0, size), ids);
        piece.remove_prefix(size);
    }
    encode_word(piece, ids);
}

void Bpe::encode_word(std::string_view word, std::vector<std::int64_t>& ids) const {
    Merger merger(characters_of(word), merges_);
    merger.run();
    merger.append_to(ids);
}

}  // namespace asap::detail::tokens
