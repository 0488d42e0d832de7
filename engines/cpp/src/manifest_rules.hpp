/// What must hold between the values of a manifest that each are what they may be.
#pragma once

#include "manifest.hpp"

namespace asap::detail {

/// Throws `BundleError` with the code inconsistent for the first rule broken: those of asap_export/bundle/rules.py.
void check_rules(Manifest const& manifest);

}  // namespace asap::detail
