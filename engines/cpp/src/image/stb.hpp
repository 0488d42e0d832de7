/// stb_image, kept in check.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "image/jpeg_pixels.hpp"

namespace asap::detail {

/// The pixels [height, width, channels] of a PNG or GIF whose headers have been checked. Throws ImageFault
/// where it is damaged.
///
/// All memory that stb takes together stays below 64 bytes for each pixel, two for each byte of the file and
/// a mebibyte: compressed data may turn out to be far more than the pixels that it is for.
std::vector<std::uint8_t> decode_with_stb(std::vector<std::uint8_t> const& file, std::size_t height, std::size_t width,
                                          int channels);

/// The components of a JPEG whose headers have been checked. Throws, and takes memory, like
/// `decode_with_stb`.
std::vector<Plane> jpeg_planes(std::vector<std::uint8_t> const& file, std::size_t height, std::size_t width);

/// What zlib made `compressed` of, if that is at most `most` bytes; nothing where it is more, or damaged.
std::vector<std::uint8_t> inflated(std::uint8_t const* compressed, std::size_t size, std::size_t most);

}  // namespace asap::detail
