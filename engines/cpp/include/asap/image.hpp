/// Images as the model sees them: upright, RGB, 8 bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace asap {

/// Pixels in memory. `rgb` is [height, width, 3], row by row from the top, 0 to 255.
struct Image {
    std::int64_t height = 0;
    std::int64_t width = 0;
    std::vector<std::uint8_t> rgb;
};

/// The image in a file (PNG, JPEG, WebP), turned as its EXIF orientation says; transparency is dropped, 16 bits
/// are scaled to 8. Throws `Error` where it is no image, damaged, or so large that it is taken for a bomb.
Image read_image(std::filesystem::path const& file);

/// The same from memory; `name` stands for the file in messages.
Image decode_image(std::uint8_t const* bytes, std::size_t size, std::string const& name = "the image");

/// A file or an image in memory: what questions are asked about.
class ImageSource {
public:
    ImageSource(char const* file) : source_(std::filesystem::path(file)) {}         // NOLINT: meant to convert
    ImageSource(std::string const& file) : source_(std::filesystem::path(file)) {}  // NOLINT
    ImageSource(std::filesystem::path file) : source_(std::move(file)) {}           // NOLINT
    ImageSource(Image image) : source_(std::move(image)) {}                         // NOLINT

    std::variant<std::filesystem::path, Image> const& get() const { return source_; }

private:
    std::variant<std::filesystem::path, Image> source_;
};

}  // namespace asap
