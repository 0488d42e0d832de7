/// JSON Schema (Draft 2020-12), as far as the manifest's schema uses it.
#pragma once

#include <optional>
#include <string>

#include <nlohmann/json.hpp>

namespace asap::detail {

/// Where a document breaks its schema, and how.
struct Breach {
    std::string place;    // "$.model.layers"
    std::string message;  // "0 is less than the minimum of 1"
};

/// What best_match of Python's jsonschema finds: the breach nearest to the root, and of an anyOf or oneOf the
/// deepest of the alternatives' own. Nothing where `document` satisfies `schema`. Throws std::logic_error for
/// a keyword that is not implemented here.
std::optional<Breach> best_breach(nlohmann::ordered_json const& schema, nlohmann::json const& document);

}  // namespace asap::detail
