/// Bytes of a file that nobody has checked yet, and what can be wrong with them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace asap::detail {

/// Why a file is no picture; `read_image` makes the message of it.
class ImageFault : public std::runtime_error {
public:
    enum class Kind {
        unknown,      // no image, or none of the formats that this library knows
        unsupported,  // an image in a form that Python reads and this library does not; what() names it
        damaged,      // what() says how
        bomb,         // too many pixels
    };

    explicit ImageFault(Kind kind, std::string const& reason = "") : std::runtime_error(reason), kind_(kind) {}

    Kind kind() const { return kind_; }

private:
    Kind kind_;
};

inline ImageFault unknown_file() { return ImageFault(ImageFault::Kind::unknown); }
inline ImageFault unsupported(std::string const& what) { return ImageFault(ImageFault::Kind::unsupported, what); }
inline ImageFault damaged(std::string const& how) { return ImageFault(ImageFault::Kind::damaged, how); }
inline ImageFault broken() { return damaged("broken data stream when reading image file"); }

/// Bytes of someone else's.
struct Bytes {
    std::uint8_t const* data;
    std::size_t size;

    std::uint8_t const* begin() const { return data; }
    std::uint8_t const* end() const { return data + size; }
    std::uint8_t operator[](std::size_t at) const { return data[at]; }

    bool starts_with(std::string_view start) const;

    /// The bytes from `from` on, none where that is behind the end.
    Bytes from(std::size_t from) const;

    /// Numbers at `at`, which must lie within.
    std::uint32_t u16le(std::size_t at) const;
    std::uint32_t u16be(std::size_t at) const;
    std::uint32_t u32le(std::size_t at) const;
    std::uint32_t u32be(std::size_t at) const;
};

}  // namespace asap::detail
