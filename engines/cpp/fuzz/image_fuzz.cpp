/// Any bytes as an image file: pixels of the size that is said, or `Error`.
#include <cstdint>
#include <cstdlib>

#include <asap/error.hpp>

#include "image_file.hpp"

namespace {

constexpr std::int64_t kMostPixels = 1 << 18;  // so that an input costs milliseconds, and memory stays small

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    try {
        asap::Image const image = asap::detail::decode_image({data, size}, "input", kMostPixels);
        if (image.height < 1 || image.width < 1 || image.height * image.width > kMostPixels ||
            image.rgb.size() != static_cast<std::size_t>(image.height * image.width * 3))
            std::abort();
    } catch (asap::Error const&) {
        return 0;
    }
    return 0;
}
