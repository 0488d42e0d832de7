#include "image/orientation.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "image/bytes.hpp"

namespace asap::detail {

using namespace std::string_view_literals;

namespace {

constexpr std::uint32_t kOrientation = 0x0112;

/// A TIFF structure in the byte order that it names.
class Tiff {
public:
    explicit Tiff(Bytes bytes) : bytes_(bytes), big_(bytes.starts_with("MM")) {}

    bool valid() const { return bytes_.size >= 8 && (big_ || bytes_.starts_with("II")) && u16(2) == 42; }

    /// The last entry of the first directory that says the orientation, as in Pillow's.
    std::optional<std::uint32_t> orientation() const {
        std::size_t const directory = u32(4);
        if (directory > bytes_.size || bytes_.size - directory < 2) return std::nullopt;
        std::optional<std::uint32_t> found;
        std::size_t const entries = std::min<std::size_t>(u16(directory), (bytes_.size - directory - 2) / 12);
        for (std::size_t i = 0; i < entries; ++i) {
            std::size_t const entry = directory + 2 + 12 * i;
            if (u16(entry) != kOrientation) continue;
            if (auto const value = number(entry)) found = value;
        }
        return found;
    }

private:
    /// The first number of an entry; nothing where it has none, or not of a type for whole numbers.
    std::optional<std::uint32_t> number(std::size_t entry) const {
        std::uint32_t const type = u16(entry + 2), count = u32(entry + 4);
        bool const is_short = type == 3 || type == 8, is_long = type == 4 || type == 9;
        if (count == 0 || (!is_short && !is_long)) return std::nullopt;
        std::uint64_t const size = std::uint64_t{count} * (is_short ? 2 : 4);
        std::size_t const place = size <= 4 ? entry + 8 : u32(entry + 8);
        if (place > bytes_.size || bytes_.size - place < size) return std::nullopt;
        return is_short ? u16(place) : u32(place);
    }

    std::uint32_t u16(std::size_t at) const { return big_ ? bytes_.u16be(at) : bytes_.u16le(at); }
    std::uint32_t u32(std::size_t at) const { return big_ ? bytes_.u32be(at) : bytes_.u32le(at); }

    Bytes bytes_;
    bool big_;
};

std::optional<std::uint32_t> exif_orientation(std::vector<std::uint8_t> const& exif) {
    Bytes bytes{exif.data(), exif.size()};
    while (bytes.starts_with("Exif\0\0"sv)) bytes = bytes.from(6);
    Tiff const tiff(bytes);
    return tiff.valid() ? tiff.orientation() : std::nullopt;
}

/// The first `tiff:Orientation="6"` or `tiff:Orientation>6`.
std::optional<std::uint32_t> xmp_orientation(std::string const& xmp) {
    std::string const name = "tiff:Orientation";
    for (auto at = xmp.find(name); at != std::string::npos; at = xmp.find(name, at + 1)) {
        std::size_t digit = at + name.size();
        if (xmp.compare(digit, 2, "=\"") == 0)
            digit += 2;
        else if (xmp.compare(digit, 1, ">") == 0)
            digit += 1;
        else
            continue;
        if (digit < xmp.size() && xmp[digit] >= '0' && xmp[digit] <= '9')
            return static_cast<std::uint32_t>(xmp[digit] - '0');
    }
    return std::nullopt;
}

/// The bytes of "\nexif\n    1234\n45786966...\n": hexadecimal digits from the fourth line on.
std::vector<std::uint8_t> profile_bytes(std::string const& profile) {
    std::size_t start = 0;
    for (int line = 0; line < 3 && start != std::string::npos; ++line) {
        start = profile.find('\n', start);
        if (start != std::string::npos) ++start;
    }
    std::vector<std::uint8_t> bytes;
    int high = -1;
    for (std::size_t i = start; i < profile.size(); ++i) {
        char const* const digits = "0123456789abcdef0123456789ABCDEF";
        char const* const digit = profile[i] ? std::strchr(digits, profile[i]) : nullptr;
        if (!digit) continue;
        int const value = static_cast<int>((digit - digits) % 16);
        if (high >= 0) bytes.push_back(static_cast<std::uint8_t>(high * 16 + value));
        high = high >= 0 ? -1 : value;
    }
    return bytes;
}

}  // namespace

int orientation(Metadata const& metadata) {
    std::optional<std::uint32_t> found;
    if (metadata.exif)
        found = exif_orientation(*metadata.exif);
    else if (!metadata.raw_profile.empty())
        found = exif_orientation(profile_bytes(metadata.raw_profile));
    if (!found) found = xmp_orientation(metadata.xmp);
    return found && *found >= 1 && *found <= 8 ? static_cast<int>(*found) : 1;
}

Image upright(Image image, int value) {
    if (value <= 1) return image;
    bool const turned = value >= 5;  // columns become rows
    bool const from_right = value == 2 || value == 3 || value == 7 || value == 8;
    bool const from_bottom = value == 3 || value == 4 || value == 6 || value == 7;
    auto const height = static_cast<std::size_t>(image.height), width = static_cast<std::size_t>(image.width);
    Image result{turned ? image.width : image.height, turned ? image.height : image.width,
                 std::vector<std::uint8_t>(image.rgb.size())};
    std::uint8_t* to = result.rgb.data();
    for (std::size_t y = 0; y < (turned ? width : height); ++y) {
        for (std::size_t x = 0; x < (turned ? height : width); ++x) {
            std::size_t const down = turned ? x : y, along = turned ? y : x;
            std::size_t const row = from_bottom ? height - 1 - down : down;
            std::size_t const column = from_right ? width - 1 - along : along;
            to = std::copy_n(&image.rgb[(row * width + column) * 3], 3, to);
        }
    }
    return result;
}

}  // namespace asap::detail
