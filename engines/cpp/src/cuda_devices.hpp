/// Which CUDA devices this machine has, asked of the driver itself.
#pragma once

#include <string>
#include <vector>

namespace asap::detail {

/// Of every visible CUDA device, as "8.6"; empty where there is no device or no driver.
std::vector<std::string> compute_capabilities();

}  // namespace asap::detail
