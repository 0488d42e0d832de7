#include "tokenizer/added_tokens.hpp"

#include <algorithm>

#include <asap/error.hpp>

#include "tokenizer/character_tables.hpp"
#include "tokenizer/characters.hpp"
#include "tokenizer/normalizer.hpp"

namespace asap::detail::tokens {

namespace {

bool is_before(std::string_view text, std::size_t at, std::uint8_t classes) {
    return at > 0 && (classes_of(character_at(text, start_before(text, at)).code) & classes);
}

bool is_behind(std::string_view text, std::size_t at, std::uint8_t classes) {
    return at < text.size() && (classes_of(character_at(text, at).code) & classes);
}

std::string quoted(AddedToken const& token) { return "\"" + with_replacements(token.content.substr(0, 80)) + "\""; }

}  // namespace

bool Trie::add(std::string_view word, std::uint32_t value) {
    std::uint32_t node = 0;
    for (char const sign : word) {
        auto const byte = static_cast<unsigned char>(sign);
        if (node == 0) starts_[byte] = true;
        auto const fresh = static_cast<std::uint32_t>(values_.size());
        auto const [found, added] = next_.emplace(std::uint64_t{node} << 8 | byte, fresh);
        if (added) values_.push_back(kNothing);
        node = found->second;
    }
    bool const fresh = values_[node] == kNothing;
    values_[node] = value;
    return fresh;
}

Trie::Found Trie::longest_at(std::string_view text, std::size_t at) const {
    Found longest{kNothing, 0};
    if (!starts_[static_cast<unsigned char>(text[at])]) return longest;
    std::uint32_t node = 0;
    for (std::size_t end = at; end < text.size();) {
        auto const found = next_.find(std::uint64_t{node} << 8 | static_cast<unsigned char>(text[end]));
        if (found == next_.end()) break;
        node = found->second;
        ++end;
        if (values_[node] != kNothing) longest = {values_[node], end - at};
    }
    return longest;
}

AddedTokens::AddedTokens(std::vector<AddedToken> const& tokens, std::vector<NormalizerStep> const& normalizer,
                         Bpe const& model) {
    auto next_id = static_cast<std::uint32_t>(model.size());
    for (AddedToken const& token : tokens) {
        // The tokenizers package gives ids itself and does not heed a file that says otherwise.
        auto const in_model = model.id_of(token.content);
        std::uint32_t const id = in_model ? *in_model : next_id++;
        if (id != token.id)
            throw Error("tokenizer.json: expected " + std::to_string(id) + " as the id of the added token " +
                        quoted(token) + ", found " + std::to_string(token.id) + "; export it again");
        auto const [place, added] = tokens_.emplace(id, token);
        std::string const spelling = token.normalized ? normalized(token.content, normalizer) : token.content;
        bool const fresh = !spelling.empty() && (token.normalized ? normalized_ : raw_).add(spelling, id);
        if (!added || !fresh || !ids_.emplace(place->second.content, id).second)
            throw Error("tokenizer.json: expected added tokens that differ, found " + quoted(token) +
                        " like another one; export it again");
        if (spelling != token.content) spelled_.emplace(id, spelling);
        if (token.special) special_.insert(token.content);
    }
}

AddedToken const* AddedTokens::find(std::string_view content) const {
    auto const found = ids_.find(content);
    return found == ids_.end() ? nullptr : &tokens_.at(found->second);
}

std::string const* AddedTokens::token_of(std::uint32_t id) const {
    if (auto const spelling = spelled_.find(id); spelling != spelled_.end()) return &spelling->second;
    auto const found = tokens_.find(id);
    return found == tokens_.end() ? nullptr : &found->second.content;
}

void AddedTokens::split(Trie const& words, std::string_view text, Callback const& callback) const {
    std::size_t told = 0;
    for (std::size_t at = 0; !words.empty() && at < text.size();) {
        Trie::Found const found = words.longest_at(text, at);
        if (found.size == 0) {
            ++at;
            continue;
        }
        std::size_t start = at, stop = at + found.size;
        at = stop;
        AddedToken const& token = tokens_.at(found.value);
        if (token.single_word && (is_before(text, start, kWordPart) || is_behind(text, stop, kWordPart))) continue;
        if (token.lstrip)
            while (is_before(text, start, kWhiteSpace)) start = start_before(text, start);
        start = std::max(start, told);  // white space may belong to the token in front
        if (token.rstrip)
            while (is_behind(text, stop, kWhiteSpace)) stop += character_at(text, stop).size;
        if (told < start) callback(text.substr(told, start - told), nullptr);
        callback(text.substr(start, std::max(start, stop) - start), &token);
        told = stop;
    }
    if (told < text.size()) callback(text.substr(told), nullptr);
}

}  // namespace asap::detail::tokens
