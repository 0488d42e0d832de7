/// A manifest back as JSON, to compare with what it was read from.
#pragma once

#include <nlohmann/json.hpp>

#include "manifest.hpp"

namespace asap::detail {

nlohmann::json json_of(Manifest manifest);

}  // namespace asap::detail
