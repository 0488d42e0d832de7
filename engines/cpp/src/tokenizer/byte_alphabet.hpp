/// The printable characters that stand for bytes in vocabularies like GPT-2's.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace asap::detail::tokens {

/// Each byte as its character: itself where Latin-1 prints it, else the next one from U+0100 on.
std::string as_byte_characters(std::string_view bytes);

/// The bytes that `characters` stand for; empty where one of them stands for none.
std::optional<std::string> as_bytes(std::string_view characters);

}  // namespace asap::detail::tokens
