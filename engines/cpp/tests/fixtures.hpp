/// What `python -m tests.cpp.fixtures FOLDER` wrote, in the folder that the environment variable
/// ASAP_FIXTURES names.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include <asap/error.hpp>
#include <nlohmann/json.hpp>

namespace asap::test {

inline std::filesystem::path fixture(std::string const& name) {
    char const* const folder = std::getenv("ASAP_FIXTURES");
    if (!folder || !*folder) throw std::runtime_error("set ASAP_FIXTURES to what tests.cpp.fixtures wrote");
    return std::filesystem::path(folder) / name;
}

inline std::vector<std::uint8_t> bytes_of(std::filesystem::path const& file) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream) throw std::runtime_error("no fixture at " + file.string());
    return {std::istreambuf_iterator<char>(stream), {}};
}

inline nlohmann::json json_fixture(std::string const& name) { return nlohmann::json::parse(bytes_of(fixture(name))); }

/// What `act` is refused with; empty where it is not.
inline std::string refusal(std::function<void()> const& act) {
    try {
        act();
    } catch (Error const& error) {
        return error.what();
    }
    return "";
}

/// `text` with `folder` in place of each "{folder}".
inline std::string placed(std::string text, std::filesystem::path const& folder) {
    std::string const mark = "{folder}";
    for (auto at = text.find(mark); at != std::string::npos; at = text.find(mark, at))
        text.replace(at, mark.size(), folder.string());
    return text;
}

}  // namespace asap::test
