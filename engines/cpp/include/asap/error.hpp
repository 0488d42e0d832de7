/// What goes wrong, in words for the person who can mend it.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace asap {

/// The one exception of this library. `what()` is one line: what was expected, what was found, what to do. It is thrown
/// for damaged or too new bundles, files that are no images, requests that do not fit the model or its engine, and
/// memory that runs out. After it a `Model` or `Conversation` is as it was before the call.
class Error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// A bundle that cannot be used. Python refuses the same bundles with the same code and place.
class BundleError : public Error {
public:
    BundleError(std::string code, std::string place, std::string const& message)
        : Error(message), code_(std::move(code)), place_(std::move(place)) {}

    /// Which kind of fault it is. Of manifest.json as a whole: too_large, too_deep, invalid_json, duplicate_key,
    /// wrong_version. Of a value in it: missing_field, unknown_field, wrong_type, unknown_value, out_of_range,
    /// wrong_length, wrong_format, inconsistent (with another value). Of the folder: no_bundle, unfinished, unreadable,
    /// unlisted_file, outside, missing_file, wrong_size, wrong_hash, changed (while it was loaded).
    std::string const& code() const { return code_; }

    /// Where it is: "$.model.layers" in the manifest, or a file of the folder (empty: the folder itself).
    std::string const& place() const { return place_; }

private:
    std::string code_, place_;
};

}  // namespace asap
