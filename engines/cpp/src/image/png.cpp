#include <algorithm>
#include <array>
#include <cstdlib>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include <png.h>
#include <zlib.h>

#include "image/escape.hpp"
#include "image/formats.hpp"
#include "image/orientation.hpp"

namespace asap::detail {

namespace {

// Bytes of a chunk of metadata, decompressed, and of all together: as in Pillow.
constexpr std::size_t kMostChunk = 1 << 20, kMostMetadata = 64 << 20;

/// What libpng may still take. It takes what a chunk says of its own length, before it looks for the bytes.
struct Memory {
    Escape& escape;
    std::size_t left;  // bytes
};

void give_up(png_structp png, png_const_charp reason) { static_cast<Escape*>(png_get_error_ptr(png))->leave(reason); }

png_voidp take(png_structp png, png_alloc_size_t size) {
    auto& memory = *static_cast<Memory*>(png_get_mem_ptr(png));
    if (size > memory.left) memory.escape.leave("more metadata than there are bytes, or than an image may have");
    memory.left -= size;
    void* const taken = std::malloc(size);
    if (!taken) memory.escape.lacks_memory();
    return taken;
}

void give_back(png_structp, png_voidp memory) { std::free(memory); }

void read_on(png_structp png, png_bytep to, std::size_t count) {
    auto& rest = *static_cast<Bytes*>(png_get_io_ptr(png));
    if (count > rest.size) png_error(png, "image file is truncated");
    std::copy_n(rest.data, count, to);
    rest = rest.from(count);
}

/// Whether compressed bytes are at most a megabyte of others; damaged ones are, as far as they can be read.
bool is_small(Bytes packed) {
    z_stream stream{};
    if (inflateInit(&stream) != Z_OK) throw std::bad_alloc();
    stream.next_in = const_cast<Bytef*>(packed.data);
    stream.avail_in = static_cast<uInt>(packed.size);
    std::array<std::uint8_t, 1 << 14> piece;
    int state = Z_OK;
    while (state == Z_OK && stream.total_out <= kMostChunk) {
        stream.next_out = piece.data();
        stream.avail_out = static_cast<uInt>(piece.size());
        state = inflate(&stream, Z_NO_FLUSH);
    }
    std::size_t const size = stream.total_out;
    inflateEnd(&stream);
    return size <= kMostChunk;
}

/// Where the compressed part of a chunk of metadata begins; behind it where nothing is compressed.
Bytes packed_part(std::string_view kind, Bytes content) {
    auto const behind_zero = [](Bytes bytes) {
        auto const zero = std::find(bytes.begin(), bytes.end(), 0);
        return bytes.from(static_cast<std::size_t>(zero - bytes.begin()) + 1);
    };
    Bytes const rest = behind_zero(content);
    if (kind == "zTXt" || kind == "iCCP") return rest.from(1);
    bool const compressed = kind == "iTXt" && rest.size > 1 && rest[0] == 1 && rest[1] == 0;
    return compressed ? behind_zero(behind_zero(rest.from(2))) : rest.from(rest.size);
}

/// libpng passes over metadata that is too large, and Pillow refuses the image.
void check_metadata(Bytes file) {
    for (Bytes rest = file.from(8); rest.size >= 12;) {
        std::size_t const size = rest.u32be(0);
        if (size > rest.size - 12) return;
        std::string_view const kind(reinterpret_cast<char const*>(rest.data) + 4, 4);
        if (!is_small(packed_part(kind, {rest.data + 8, size})))
            throw damaged("more than a megabyte in " + std::string(kind));
        rest = rest.from(size + 12);
    }
}

class Png {
public:
    explicit Png(Bytes file) : rest_(file), memory_{escape_, kMostMetadata + 4 * file.size} {}
    ~Png() { png_destroy_read_struct(&png_, &info_, nullptr); }
    Png(Png const&) = delete;
    Png& operator=(Png const&) = delete;

    Image decode(std::int64_t most_pixels) {
        escape_.guard([&] { read_header(); });
        std::size_t const width = png_get_image_width(png_, info_), height = png_get_image_height(png_, info_);
        check_pixels(width, height, most_pixels);
        memory_.left += 64 * width;  // a few rows
        Image image{static_cast<std::int64_t>(height), static_cast<std::int64_t>(width),
                    std::vector<std::uint8_t>(height * width * 3)};
        escape_.guard([&] { read_rows(image.rgb.data(), width, height); });
        try {
            escape_.guard([&] { png_read_end(png_, info_); });
        } catch (ImageFault const&) {
            // Metadata may follow the pixels; whatever else is there does not count.
        }
        return upright(std::move(image), orientation(metadata()));
    }

private:
    /// What follows runs within `Escape::guard`.
    void read_header() {
        auto const ignore = [](png_structp, png_const_charp) {};  // warnings
        png_ = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &escape_, give_up, ignore, &memory_, take, give_back);
        if (png_) info_ = png_create_info_struct(png_);
        if (!info_) escape_.leave("libpng does not start");
        png_set_read_fn(png_, &rest_, read_on);
        png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // the number of pixels is limited instead
        png_set_chunk_malloc_max(png_, kMostChunk);
        png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
        // libpng's own reader of this chunk drops it where "Exif" stands before it, as some programs write.
        png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_ALWAYS, reinterpret_cast<png_const_bytep>("eXIf"), 1);
        png_read_info(png_, info_);
    }

    /// RGB of 8 bits, transparency dropped and nothing else changed.
    void read_rows(std::uint8_t* rgb, std::size_t width, std::size_t height) {
        png_set_strip_16(png_);
        png_set_expand(png_);
        png_set_gray_to_rgb(png_);
        png_set_strip_alpha(png_);
        int const passes = png_set_interlace_handling(png_);
        png_read_update_info(png_, info_);
        if (png_get_rowbytes(png_, info_) != width * 3) escape_.leave("not RGB");
        for (int pass = 0; pass < passes; ++pass)
            for (std::size_t y = 0; y < height; ++y) png_read_row(png_, rgb + y * width * 3, nullptr);
    }

    Metadata metadata() const {
        Metadata found;
        png_unknown_chunkp chunks = nullptr;
        for (int left = png_get_unknown_chunks(png_, info_, &chunks); left > 0; --left, ++chunks)
            found.exif.emplace(chunks->data, chunks->data + chunks->size);
        png_textp texts = nullptr;
        for (int left = png_get_text(png_, info_, &texts, nullptr); left > 0; --left, ++texts) {
            std::string const key = texts->key;
            bool const international = texts->compression >= PNG_ITXT_COMPRESSION_NONE;
            std::string text(texts->text, international ? texts->itxt_length : texts->text_length);
            if (key == "Raw profile type exif" && !international) found.raw_profile = std::move(text);
            if (key == "XML:com.adobe.xmp" && international) found.xmp = std::move(text);
        }
        return found;
    }

    Escape escape_;
    Bytes rest_;
    Memory memory_;
    png_structp png_ = nullptr;
    png_infop info_ = nullptr;
};

}  // namespace

Image decode_png(Bytes file, std::int64_t most_pixels) {
    Image image = Png(file).decode(most_pixels);
    check_metadata(file);
    return image;
}

}  // namespace asap::detail
