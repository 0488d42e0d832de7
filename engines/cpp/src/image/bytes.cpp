#include "image/bytes.hpp"

#include <algorithm>

namespace asap::detail {

bool Bytes::starts_with(std::string_view start) const {
    auto const same = [](char a, std::uint8_t b) { return static_cast<std::uint8_t>(a) == b; };
    return size >= start.size() && std::equal(start.begin(), start.end(), data, same);
}

Bytes Bytes::from(std::size_t from) const {
    std::size_t const skipped = std::min(from, size);
    return {data + skipped, size - skipped};
}

std::uint32_t Bytes::u16le(std::size_t at) const { return data[at] | static_cast<std::uint32_t>(data[at + 1]) << 8; }

std::uint32_t Bytes::u16be(std::size_t at) const { return data[at + 1] | static_cast<std::uint32_t>(data[at]) << 8; }

std::uint32_t Bytes::u32le(std::size_t at) const { return u16le(at) | u16le(at + 2) << 16; }

std::uint32_t Bytes::u32be(std::size_t at) const { return u16be(at) << 16 | u16be(at + 2); }

}  // namespace asap::detail
