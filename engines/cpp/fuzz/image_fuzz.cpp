/// Any bytes as an image file: pixels of the size that is said, or `Error`.
#include <cstdint>
#include <cstdlib>

#include <zlib.h>

#include <asap/error.hpp>

#include "image_file.hpp"

using asap::detail::Bytes;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace {

constexpr std::int64_t kMostPixels = 1 << 18;  // so that an input costs milliseconds, and memory stays small

/// Gives each whole chunk of a PNG the checksum that it should have: chance would not find it.
void mend_checksums(std::uint8_t* data, std::size_t size) {
    Bytes const file{data, size};
    if (!file.starts_with("\x89PNG\r\n\x1a\n")) return;
    for (std::size_t at = 8; at + 12 <= size;) {
        std::size_t const length = file.u32be(at), end = at + 8 + length;
        if (end + 4 > size) return;
        auto const crc = ::crc32(0, data + at + 4, static_cast<uInt>(length + 4));
        for (std::size_t i = 0; i < 4; ++i) data[end + i] = static_cast<std::uint8_t>(crc >> (24 - 8 * i));
        at = end + 4;
    }
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most,
                                               unsigned int seed) {
    std::size_t const mutated = LLVMFuzzerMutate(data, size, most);
    if (seed % 16) mend_checksums(data, mutated);
    return mutated;
}

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
