#include "tokenizer/tokenizer.hpp"

#include <limits>
#include <utility>

#include <asap/error.hpp>

#include "tokenizer/added_tokens.hpp"
#include "tokenizer/bpe.hpp"
#include "tokenizer/characters.hpp"
#include "tokenizer/decoder.hpp"
#include "tokenizer/definition.hpp"
#include "tokenizer/normalizer.hpp"
#include "tokenizer/pre_tokenizer.hpp"

namespace asap::detail {

namespace tokens {

struct Parts {
    explicit Parts(Definition definition)
        : model(definition.vocabulary),
          added(definition.added_tokens, definition.normalizer, model),
          normalizer(std::move(definition.normalizer)),
          pre_tokenizer(definition.pre_tokenizer),
          post_processor(std::move(definition.post_processor)),
          decoder(std::move(definition.decoder)) {}

    Bpe model;
    AddedTokens added;
    std::vector<NormalizerStep> normalizer;
    PreTokenizer pre_tokenizer;
    std::vector<TemplatePart> post_processor;
    std::optional<std::vector<DecoderStep>> decoder;
};

void check_utf8(std::string_view text) {
    std::size_t const valid = valid_length(text);
    if (valid == text.size()) return;
    char const* const digits = "0123456789ABCDEF";
    auto const byte = static_cast<unsigned char>(text[valid]);
    throw Error(std::string("expected text in UTF-8, found the byte 0x") + digits[byte / 16] + digits[byte % 16] +
                " at offset " + std::to_string(valid) + "; convert it to UTF-8");
}

namespace {

void check(std::string_view text) {
    if (text.size() > kLongestText)
        throw Error("expected text of at most " + std::to_string(kLongestText) + " bytes, found " +
                    std::to_string(text.size()) + "; ask in fewer words");
    check_utf8(text);
}

/// Ids of the text alone.
std::vector<std::int64_t> ids_of(Parts const& parts, std::string_view text) {
    std::vector<std::int64_t> ids;
    auto const encode_between = [&](std::string_view piece, bool is_start) {
        parts.pre_tokenizer.split(piece, is_start, [&](std::string_view word) { parts.model.encode(word, ids); });
    };
    parts.added.split_raw(text, [&](std::string_view raw, AddedToken const* token) {
        if (token) return ids.push_back(token->id);
        std::string const spelled = normalized(raw, parts.normalizer);
        bool const is_start = raw.data() == text.data();
        parts.added.split_normalized(spelled, [&](std::string_view piece, AddedToken const* found) {
            if (found) return ids.push_back(found->id);
            encode_between(piece, is_start && piece.data() == spelled.data());
        });
    });
    return ids;
}

/// The token that decoding starts from; null where there is none.
std::string const* token_of(Parts const& parts, std::int64_t id) {
    if (id < 0 || id > std::numeric_limits<std::int32_t>::max()) return nullptr;
    auto const known = static_cast<std::uint32_t>(id);
    std::string const* const added = parts.added.token_of(known);
    return added ? added : parts.model.token_of(known);
}

}  // namespace

}  // namespace tokens

Tokenizer::Tokenizer(std::string_view tokenizer_json)
    : parts_(std::make_shared<tokens::Parts const>(tokens::read_definition(tokenizer_json))) {}

std::vector<std::int64_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
    tokens::check(text);
    std::vector<std::int64_t> const own = tokens::ids_of(*parts_, text);
    std::vector<std::int64_t> ids;
    for (tokens::TemplatePart const& part : parts_->post_processor) {
        if (!part.is_text && !add_special_tokens) continue;
        std::vector<std::int64_t> const& next = part.is_text ? own : part.ids;
        ids.insert(ids.end(), next.begin(), next.end());
    }
    return ids;
}

std::string Tokenizer::decode(std::vector<std::int64_t> const& ids, bool skip_special_tokens) const {
    std::vector<std::string> found;
    for (std::int64_t const id : ids) {
        std::string const* const token = tokens::token_of(*parts_, id);
        if (token && !(skip_special_tokens && parts_->added.is_special(*token))) found.push_back(*token);
    }
    return tokens::decoded(std::move(found), parts_->decoder);
}

std::optional<std::int64_t> Tokenizer::token_to_id(std::string_view token) const {
    if (auto const* const added = parts_->added.find(token)) return added->id;
    return parts_->model.id_of(token);
}

std::string Tokenizer::id_to_token(std::int64_t id) const {
    std::string const* const token = tokens::token_of(*parts_, id);
    return token ? *token : std::string();
}

}  // namespace asap::detail
