/// Text as the model's vocabulary spells it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/definition.hpp"

namespace asap::detail::tokens {

/// Bytes of a text that is read at all: far more than any model has positions for.
constexpr std::size_t kLongestText = std::size_t{1} << 26;

/// Each `from` in `text`, from left to right, replaced by `to`. Throws `Error` where that is too long.
std::string replaced(std::string_view text, Replace const& replace);

/// Unicode's normalization form C, of the characters that Hugging Face's tokenizers know.
std::string nfc(std::string_view text);

/// Takes the steps in order. Empty text stays empty.
std::string normalized(std::string_view text, std::vector<NormalizerStep> const& steps);

}  // namespace asap::detail::tokens
