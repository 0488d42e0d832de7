/// Images in files; the public part is asap/image.hpp.
#pragma once

#include <cstdint>
#include <string>

#include <asap/image.hpp>

#include "image/bytes.hpp"

namespace asap::detail {

/// As many as Pillow takes before it calls a picture a bomb.
constexpr std::int64_t kMostPixels = 178'956'970;

/// `asap::decode_image` with a limit of its own.
Image decode_image(Bytes file, std::string const& name, std::int64_t most_pixels);

}  // namespace asap::detail
