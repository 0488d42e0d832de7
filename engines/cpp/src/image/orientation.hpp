/// Which way up a picture is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <asap/image.hpp>

namespace asap::detail {

/// What a file says about its picture, as far as it can tell the orientation.
struct Metadata {
    std::optional<std::vector<std::uint8_t>> exif;  // a TIFF header and what follows, "Exif\0\0" before it or not
    std::string raw_profile;                        // EXIF in hexadecimal, as ImageMagick writes it into a PNG
    std::string xmp;
};

/// EXIF's orientation, 1 (upright) to 8; 1 where nothing is said or nothing sensible.
int orientation(Metadata const& metadata);

/// The picture turned and mirrored so that orientation `value` becomes upright.
Image upright(Image image, int value);

}  // namespace asap::detail
