/// How many visual tokens of a prompt survive the cut.
#pragma once

#include <cstdint>

#include <asap/request.hpp>

#include "manifest.hpp"

namespace asap::detail {

/// Throws `Error` where a number in `options` is out of range or two budgets are given.
void check_options(Options const& options);

/// Visual tokens to keep of `visual_tokens`: what `options` ask for, or else the bundle's own budget. Throws `Error`
/// where an average cannot be met, or a dense bundle is asked to prune.
std::int64_t kept_visual_tokens(Manifest const& manifest, Options const& options, std::int64_t visual_tokens);

}  // namespace asap::detail
