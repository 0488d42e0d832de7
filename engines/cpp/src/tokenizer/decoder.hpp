/// Tokens back to text.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tokenizer/definition.hpp"

namespace asap::detail::tokens {

/// The text of tokens, which is UTF-8: bytes that make no character become U+FFFD. Without a decoder, tokens
/// stand with a space between them.
std::string decoded(std::vector<std::string> tokens, std::optional<std::vector<DecoderStep>> const& steps);

}  // namespace asap::detail::tokens
