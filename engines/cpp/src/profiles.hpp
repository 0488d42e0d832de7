/// Which optimization profile of an engine takes a request, and what to say where none does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "manifest.hpp"
#include "tensor.hpp"

namespace asap::detail {

/// The number of the narrowest profile that takes inputs of `shapes` and shape tensors of `values`.
///
/// So a decode step runs in the generation profile, though the context profile may allow it too. Throws `Error` with
/// the limit and what was found where no profile takes them. `inputs` name the dimensions.
std::size_t choose_profile(std::vector<TensorInfo> const& inputs, std::vector<Profile> const& profiles,
                           std::map<std::string, Shape> const& shapes, std::map<std::string, Shape> const& values);

/// The largest size of an input's axis in any profile; nothing where none names the input.
std::optional<std::int64_t> longest(std::vector<Profile> const& profiles, std::string const& name, std::size_t axis);

}  // namespace asap::detail
