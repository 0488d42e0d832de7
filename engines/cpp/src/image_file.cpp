#include "image_file.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <new>

#include <asap/error.hpp>

#include "image/formats.hpp"
#include "wording.hpp"

namespace asap {

namespace detail {

namespace {

using namespace std::string_view_literals;

bool is_url(std::string const& name) {
    auto const begins = [&](std::string_view scheme) {
        return std::string_view(name).substr(0, scheme.size()) == scheme;
    };
    return begins("http://") || begins("https://") || begins("ftp://") || begins("file://") || begins("s3://") ||
           begins("gs://") || begins("data:");
}

/// Formats that Python reads and this library does not, by how they begin.
std::string foreign_format(Bytes file) {
    if (file.starts_with("GIF87a") || file.starts_with("GIF89a")) return "GIF";
    if (file.starts_with("BM")) return "BMP";
    if (file.starts_with("II*\0"sv) || file.starts_with("MM\0*"sv)) return "TIFF";
    if (file.from(4).starts_with("ftypavif")) return "AVIF";
    if (file.from(4).starts_with("jP  \r\n") || file.starts_with("\xff\x4f\xff\x51"sv)) return "JPEG 2000";
    if (file.starts_with("\0\0\1\0"sv)) return "ICO";
    if (file.size > 2 && file[0] == 'P' && file[1] >= '1' && file[1] <= '6' && file[2] <= ' ') return "Netpbm";
    return "";
}

Image decoded(Bytes file, std::int64_t most_pixels) {
    if (file.starts_with("\x89PNG\r\n\x1a\n"sv)) return decode_png(file, most_pixels);
    if (file.starts_with("\xff\xd8\xff"sv)) return decode_jpeg(file, most_pixels);
    if (file.starts_with("RIFF") && file.from(8).starts_with("WEBPVP8")) return decode_webp(file, most_pixels);
    std::string const format = foreign_format(file);
    throw format.empty() ? unknown_file() : unsupported(format);
}

Error unreadable(std::string const& name, std::string const& found) {
    return Error("expected a readable image in " + name + ", found: " + found + "; give another");
}

Error told(ImageFault const& fault, std::string const& name, std::int64_t most_pixels) {
    switch (fault.kind()) {
        case ImageFault::Kind::unknown:
            return Error("expected an image in " + name + ", found another kind of file; give another");
        case ImageFault::Kind::unsupported:
            return Error("expected a PNG, JPEG or WebP image in " + name + ", found " + fault.what() +
                         "; convert it to PNG");
        case ImageFault::Kind::bomb:
            return Error("expected an image of at most " + std::to_string(most_pixels) + " pixels, found more in " +
                         name + "; scale it down");
        case ImageFault::Kind::damaged: break;
    }
    return unreadable(name, one_line(fault.what()));
}

Error system_error(std::string const& name, int number, std::filesystem::path const& file) {
    return unreadable(
        name, "[Errno " + std::to_string(number) + "] " + std::strerror(number) + ": " + python_repr(file.string()));
}

std::vector<std::uint8_t> content(std::filesystem::path const& file, std::string const& name) {
    std::error_code error;
    auto const size = std::filesystem::file_size(file, error);
    if (error) throw system_error(name, error.value(), file);
    if (size > static_cast<std::uintmax_t>(std::numeric_limits<int>::max()))
        throw unreadable(name, "a file of more than 2 GiB");
    errno = 0;
    std::ifstream stream(file, std::ios::binary);
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(size));
    if (!stream.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size())))
        throw system_error(name, errno ? errno : EIO, file);
    return bytes;
}

}  // namespace

void check_pixels(std::uint64_t width, std::uint64_t height, std::int64_t most_pixels) {
    if (width == 0 || height == 0) throw damaged("no pixels");
    if (width > static_cast<std::uint64_t>(most_pixels) / height) throw ImageFault(ImageFault::Kind::bomb);
}

Image decode_image(Bytes file, std::string const& name, std::int64_t most_pixels) {
    try {
        return decoded(file, most_pixels);
    } catch (ImageFault const& fault) {
        throw told(fault, name, most_pixels);
    } catch (std::bad_alloc const&) {
        throw unreadable(name, "too little memory for its pixels");
    }
}

}  // namespace detail

Image read_image(std::filesystem::path const& file) {
    if (detail::is_url(file.native()))
        throw Error("expected an image file, found the URL " + file.native() + "; download it first");
    std::error_code error;
    auto const status = std::filesystem::status(file, error);
    if (!std::filesystem::is_regular_file(status))
        throw Error("expected an image file at " + detail::python_path(file) + ", found " +
                    (std::filesystem::is_directory(status) ? "a folder" : "nothing") + "; check the path");
    std::string const name = file.string();
    try {
        auto const bytes = detail::content(file, name);
        return decode_image(bytes.data(), bytes.size(), name);
    } catch (std::bad_alloc const&) {
        throw detail::unreadable(name, "too little memory for its bytes");
    }
}

Image decode_image(std::uint8_t const* bytes, std::size_t size, std::string const& name) {
    return detail::decode_image({bytes, size}, name, detail::kMostPixels);
}

}  // namespace asap
