/// Decoders of the formats that this library reads.
///
/// Each walks through its file first, checks what it finds and hands the decoder a file of its own making
/// that holds that and nothing else. So decoders meet no header that was not looked at, and memory is taken
/// for sizes that were.
#pragma once

#include <cstdint>

#include <asap/image.hpp>

#include "image/bytes.hpp"

namespace asap::detail {

/// Throws `ImageFault` where width x height pixels are none, or more than `most_pixels`.
void check_pixels(std::uint64_t width, std::uint64_t height, std::int64_t most_pixels);

// All throw ImageFault. `file` starts as the format's files do.
Image decode_png(Bytes file, std::int64_t most_pixels);
Image decode_jpeg(Bytes file, std::int64_t most_pixels);
Image decode_bmp(Bytes file, std::int64_t most_pixels);
Image decode_gif(Bytes file, std::int64_t most_pixels);  // the first frame

}  // namespace asap::detail
