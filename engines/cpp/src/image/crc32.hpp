/// PNG's checksum.
#pragma once

#include <cstdint>

#include "image/bytes.hpp"

namespace asap::detail {

/// CRC-32 of a chunk's type and content.
std::uint32_t crc32(Bytes bytes);

}  // namespace asap::detail
