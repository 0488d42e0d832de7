/// Decoders of the formats that this library reads, on the C libraries that Pillow uses, or, for PNG, on one that gives
/// the same pixels.
#pragma once

#include <cstdint>

#include <asap/image.hpp>

#include "image/bytes.hpp"

namespace asap::detail {

/// Throws `ImageFault` where width x height pixels are none, or more than `most_pixels`.
void check_pixels(std::uint64_t width, std::uint64_t height, std::int64_t most_pixels);

// All throw ImageFault, and look at the size before they take memory for pixels. `file` starts as the format's files
// do.
Image decode_png(Bytes file, std::int64_t most_pixels);
Image decode_jpeg(Bytes file, std::int64_t most_pixels);
Image decode_webp(Bytes file, std::int64_t most_pixels);  // the first frame

}  // namespace asap::detail
