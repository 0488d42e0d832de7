/// asap_export/bundle/manifest.schema.json, as it was when this library was built.
#pragma once

#include <string_view>

namespace asap::detail {

std::string_view manifest_schema();

}  // namespace asap::detail
