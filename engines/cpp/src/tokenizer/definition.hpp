/// What a tokenizer.json says, in plain numbers and strings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tokenizer/split_pattern.hpp"

namespace asap::detail::tokens {

struct AddedToken {
    std::string content;
    std::uint32_t id = 0;
    bool single_word = false;  // not inside of a word
    bool lstrip = false;       // takes the white space on its left
    bool rstrip = false;       // and on its right
    bool normalized = false;   // is looked for after normalization
    bool special = false;      // may be left out of decoded text
};

/// Steps of a normalizer: text to text.
struct Prepend {
    std::string text;
};
struct Replace {  // also a decoder's
    std::string from, to;
};
struct Nfc {};
using NormalizerStep = std::variant<Prepend, Replace, Nfc>;

/// Steps of a pre-tokenizer: text to pieces that no token crosses. Metaspace and ByteLevel decode, too.
struct Split {
    SplitPattern pattern;
};
struct ByteLevel {  // each byte a printable character
    bool add_prefix_space = false;
    bool use_regex = true;  // split like GPT-2
};
enum class PrependScheme { first, never, always };
struct Metaspace {
    std::string replacement;  // a character that stands for a space
    PrependScheme prepend_scheme = PrependScheme::always;
    bool split = true;
};
using PreTokenizerStep = std::variant<Split, ByteLevel, Metaspace>;

/// Steps of a decoder: tokens to text.
struct ByteFallback {};
struct Fuse {};
struct Strip {
    std::string content;  // a character
    std::size_t start = 0, stop = 0;
};
using DecoderStep = std::variant<Replace, ByteFallback, Fuse, Strip, ByteLevel, Metaspace>;

/// Part of what comes out where special tokens are added: the text's own tokens, or these.
struct TemplatePart {
    bool is_text = false;
    std::vector<std::int64_t> ids;
};

/// Byte pair encoding.
struct Vocabulary {
    std::vector<std::pair<std::string, std::uint32_t>> tokens;  // ids below 2^31, none twice
    std::vector<std::pair<std::string, std::string>> merges;    // what is merged first comes first
    std::optional<std::string> unk_token;
    bool fuse_unk = false, byte_fallback = false, ignore_merges = false;
};

struct Definition {
    std::vector<AddedToken> added_tokens;
    std::vector<NormalizerStep> normalizer;
    std::vector<PreTokenizerStep> pre_tokenizer;
    std::vector<TemplatePart> post_processor;
    std::optional<std::vector<DecoderStep>> decoder;
    Vocabulary vocabulary;
};

/// Reads a tokenizer.json. Throws `Error` where it is none, or has a part that this runtime does not know.
///
/// `truncation` and `padding` are not read: transformers, too, applies neither unless a call asks for it.
Definition read_definition(std::string_view json);

}  // namespace asap::detail::tokens
