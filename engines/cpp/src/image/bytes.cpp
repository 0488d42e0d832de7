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

void append(std::vector<std::uint8_t>& to, Bytes bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }

void append_u16le(std::vector<std::uint8_t>& to, std::uint32_t value) {
    for (unsigned const shift : {0u, 8u}) to.push_back(static_cast<std::uint8_t>(value >> shift & 0xff));
}

void append_u32be(std::vector<std::uint8_t>& to, std::uint32_t value) {
    for (unsigned const shift : {24u, 16u, 8u, 0u}) to.push_back(static_cast<std::uint8_t>(value >> shift & 0xff));
}

Bytes Reader::header(std::size_t count) {
    if (count > left()) throw in_data_ ? truncated() : unknown_file();
    Bytes const part{bytes_.data + position_, count};
    position_ += count;
    return part;
}

Bytes Reader::block(std::size_t count) {
    if (count > left()) throw in_data_ ? truncated() : damaged("Truncated File Read");
    return header(count);
}

}  // namespace asap::detail
