/// A tokenizer.json of Hugging Face's `tokenizers`, run without it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace asap::detail {

namespace tokens {
struct Parts;

/// Throws `Error` that says which byte is no UTF-8.
void check_utf8(std::string_view text);
}  // namespace tokens

/// Gives the ids, and the text, that the `tokenizers` package gives for the same file: byte pair encoding as
/// in Llama, Llama 3, Mistral, Qwen2 and GPT-2. Any other component is refused. Thread-safe; copies share
/// what was read.
class Tokenizer {
public:
    /// Throws `Error` that names the part of the file which is damaged or not known.
    explicit Tokenizer(std::string_view tokenizer_json);

    /// The ids of `text`, [T]. Throws `Error` where it is not UTF-8: Python text cannot be anything else, and
    /// a guess would answer another question than was asked.
    std::vector<std::int64_t> encode(std::string_view text, bool add_special_tokens) const;

    /// Text in UTF-8; bytes that make no character are U+FFFD. Ids that no token has are left out.
    std::string decode(std::vector<std::int64_t> const& ids, bool skip_special_tokens) const;

    std::optional<std::int64_t> token_to_id(std::string_view token) const;

    /// Empty where no token has this id.
    std::string id_to_token(std::int64_t id) const;

private:
    std::shared_ptr<tokens::Parts const> parts_;
};

}  // namespace asap::detail
