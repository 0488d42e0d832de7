/// How much memory a bundle may take on this machine, asked before it is loaded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "bundle.hpp"

namespace asap::detail {

/// Bytes that can be allocated now without swapping: the kernel's own estimate, and what is left of the limits of the
/// control groups around this process. The largest number where the system does not say.
std::int64_t available_memory(std::filesystem::path const& root = "/");

/// A number of bytes as "4.2 GB".
std::string gigabytes(std::int64_t size);

/// Whether weights fit into memory as stored, but not as float32, in which ONNX Runtime computes on a CPU. Throws
/// `Error` where not even the first is so: the kernel would end the process without a word.
bool weights_stay_on_disk(Bundle const& bundle);

}  // namespace asap::detail
