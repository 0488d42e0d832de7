/// SHA-256 of files too large to read at once.
#pragma once

#include <filesystem>
#include <string>

namespace asap::detail {

/// Hexadecimal digest of the file, lower case. Throws std::system_error where it cannot be read.
std::string sha256_of(std::filesystem::path const& file);

}  // namespace asap::detail
