/// How byte-level tokenizers split text.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

namespace asap::detail::tokens {

/// The regular expressions that tokenizers of these families split text with.
enum class SplitPattern { gpt2, llama3, qwen2 };

/// The pattern that `expression` is; nothing where it is another.
std::optional<SplitPattern> split_pattern(std::string_view expression);

/// Calls back with one piece after the other: all of the text, in UTF-8, as Oniguruma splits it, the library that
/// Hugging Face's tokenizers use. Takes time in proportion to the text. Thread-safe.
void split(SplitPattern pattern, std::string_view text, std::function<void(std::string_view)> const& piece);

}  // namespace asap::detail::tokens
