#include "image/crc32.hpp"

#include <array>

namespace asap::detail {

namespace {

constexpr std::array<std::uint32_t, 256> table() {
    std::array<std::uint32_t, 256> values{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit) value = (value & 1 ? 0xedb88320u : 0u) ^ (value >> 1);
        values[i] = value;
    }
    return values;
}

constexpr auto kTable = table();

}  // namespace

std::uint32_t crc32(Bytes bytes) {
    std::uint32_t crc = 0xffffffff;
    for (std::uint8_t const byte : bytes) crc = kTable[(crc ^ byte) & 0xff] ^ (crc >> 8);
    return crc ^ 0xffffffff;
}

}  // namespace asap::detail
