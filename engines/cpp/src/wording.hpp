/// Values in messages, written as Python writes them: the same mistake reads the same in both runtimes.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace asap::detail {

/// repr() of a str: quoted, control characters escaped. Unlike Python's it leaves other unprintable
/// characters alone.
std::string python_repr(std::string_view text);

/// str() of pathlib's Path: no doubled or closing slashes, no "." parts.
std::string python_path(std::filesystem::path const& path);

/// Error text of another library on one line.
std::string one_line(std::string_view text);

}  // namespace asap::detail
