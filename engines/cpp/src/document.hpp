/// Bytes to a JSON document, and what is said of a value in it that is wrong.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <asap/error.hpp>
#include <nlohmann/json.hpp>

namespace asap::detail {

constexpr std::size_t kLargestManifest = 8 << 20;  // bytes; a hundred times what an export writes

/// Where a value is: a chain up to the root. A place must outlive those below it.
class Place {
public:
    Place() = default;
    Place(Place const& above, std::string_view key) : above_(&above), key_(key) {}
    Place(Place const& above, std::size_t index) : above_(&above), index_(index), is_index_(true) {}

    /// "$.engines[0].profiles"; a key that is no identifier in brackets and quotes.
    std::string text() const;

private:
    Place const* above_ = nullptr;
    std::string_view key_;
    std::size_t index_ = 0;
    bool is_index_ = false;
};

/// A fault of manifest.json, in one line.
BundleError manifest_error(char const* code, std::string const& place, std::string const& expected,
                           std::string const& found);

/// A value in a message: short, in ASCII, without line breaks.
std::string shown(nlohmann::json const& value);

/// Whether `value` is a whole number. 7.0 is none; a number too large for an integer of 64 bits, which the parser gives
/// as a float, is one.
bool is_whole(nlohmann::json const& value);

/// The JSON value in `content`: in UTF-8 without a byte order mark, finite numbers, no name twice. Throws `BundleError`
/// with the code too_large, too_deep, invalid_json or duplicate_key.
nlohmann::json read_document(std::string_view content);

}  // namespace asap::detail
