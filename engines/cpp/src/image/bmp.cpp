// Decoded here and not by stb: it rounds 16-bit colours another way than Pillow, and takes missing bytes for
// black.
#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "image/formats.hpp"

namespace asap::detail {

namespace {

enum Compression : std::uint32_t { kRaw = 0, kRle8 = 1, kRle4 = 2, kBitfields = 3 };

constexpr std::size_t kFileHeader = 14;

using Masks = std::array<std::uint32_t, 4>;  // red, green, blue, alpha

/// Layouts of 32 bits that Pillow knows, too.
constexpr Masks kLayouts[] = {
    {0xff0000, 0xff00, 0xff, 0},          {0xff000000, 0xff0000, 0xff00, 0},
    {0xff000000, 0xff00, 0xff, 0},        {0xff000000, 0xff0000, 0xff00, 0xff},
    {0xff, 0xff00, 0xff0000, 0xff000000}, {0xff0000, 0xff00, 0xff, 0xff000000},
    {0xff000000, 0xff00, 0xff, 0xff0000}, {0, 0, 0, 0},
};

class Bmp {
public:
    explicit Bmp(Bytes file) : file_(file), reader_(file) {}

    Image decode(std::int64_t most_pixels) {
        read_header();
        check_pixels(width_, height_, most_pixels);
        std::size_t const place = offset_ ? offset_ : reader_.position();
        std::size_t const row = (width_ * bits_ + 7) / 8, stride = (width_ * bits_ + 31) / 32 * 4;
        Bytes const rows = file_.from(place);
        if (rows.size < stride * (height_ - 1) + row)  // nothing need follow the last row
            throw damaged("image file is truncated (" + std::to_string(rows.size % stride) + " bytes not processed)");
        Image image{static_cast<std::int64_t>(height_), static_cast<std::int64_t>(width_), {}};
        image.rgb.reserve(width_ * height_ * 3);
        for (std::size_t y = 0; y < height_; ++y)
            append_row(image.rgb, rows.from(stride * (from_top_ ? y : height_ - 1 - y)));
        return image;
    }

private:
    void read_header() {
        offset_ = reader_.header(kFileHeader).u32le(10);
        std::size_t const size = reader_.header(4).u32le(0);
        Bytes const header = reader_.block(std::max<std::size_t>(size, 4) - 4);
        std::size_t colors = 0, color_bytes = 4;
        Compression compression = kRaw;
        if (size == 12) {
            width_ = header.u16le(0);
            height_ = header.u16le(2);
            bits_ = header.u16le(6);
            color_bytes = 3;
        } else if (size == 40 || size == 52 || size == 56 || size == 64 || size == 108 || size == 124) {
            from_top_ = header[7] == 0xff;
            width_ = header.u32le(0);
            height_ = from_top_ ? (std::uint64_t{1} << 32) - header.u32le(4) : header.u32le(4);
            bits_ = header.u16le(10);
            compression = static_cast<Compression>(header.u32le(12));
            colors = header.u32le(28);
            if (compression == kBitfields) read_masks(header);
        } else {
            throw damaged("Unsupported BMP header type (" + std::to_string(size) + ")");
        }
        check_form(compression);
        if (bits_ <= 8) read_palette(colors ? colors : std::size_t{1} << bits_, color_bytes, size);
    }

    void read_masks(Bytes header) {
        bool const within = header.size >= 48;
        Bytes const masks = within ? header.from(36) : reader_.header(12);
        for (std::size_t i = 0; i < (header.size >= 52 ? 4 : 3); ++i) masks_[i] = masks.u32le(4 * i);
    }

    void check_form(Compression compression) {
        bool const known = bits_ == 1 || bits_ == 4 || bits_ == 8 || bits_ == 16 || bits_ == 24 || bits_ == 32;
        if (!known) throw damaged("Unsupported BMP pixel depth (" + std::to_string(bits_) + ")");
        if (compression == kRle8 || compression == kRle4) throw unsupported("a run-length coded BMP");
        if (compression == kBitfields) return check_masks();
        if (compression != kRaw) throw damaged("Unsupported BMP compression (" + std::to_string(compression) + ")");
        masks_ = bits_ == 16 ? Masks{0x7c00, 0x3e0, 0x1f, 0} : kLayouts[0];
    }

    void check_masks() {
        Masks const colors{masks_[0], masks_[1], masks_[2], 0};
        bool known = false;
        if (bits_ == 32) known = std::find(std::begin(kLayouts), std::end(kLayouts), masks_) != std::end(kLayouts);
        if (bits_ == 24) known = colors == kLayouts[0];
        if (bits_ == 16) known = colors == Masks{0xf800, 0x7e0, 0x1f, 0} || colors == Masks{0x7c00, 0x3e0, 0x1f, 0};
        if (!known) throw damaged("Unsupported BMP bitfields layout");
        if (masks_ == Masks{}) masks_ = kLayouts[0];
    }

    /// Colours beyond the palette's end are black.
    void read_palette(std::size_t colors, std::size_t color_bytes, std::size_t header_size) {
        if (colors > 65536) throw damaged("Unsupported BMP Palette size (" + std::to_string(colors) + ")");
        if (colors > 256) throw damaged("invalid palette size");
        if (offset_ == kFileHeader + header_size) offset_ += color_bytes * colors;  // it must lie behind the palette
        Bytes const palette = reader_.header(std::min(color_bytes * colors, reader_.left()));
        for (std::size_t i = 0; i < palette.size / color_bytes; ++i)
            for (std::size_t channel = 0; channel < 3; ++channel)
                palette_[i][channel] = palette[i * color_bytes + 2 - channel];
    }

    void append_row(std::vector<std::uint8_t>& rgb, Bytes row) const {
        for (std::size_t x = 0; x < width_; ++x) {
            if (bits_ <= 8) {
                std::size_t const bit = x * bits_;
                unsigned const shift = static_cast<unsigned>(8 - bits_ - bit % 8), mask = (1u << bits_) - 1;
                auto const& color = palette_[row[bit / 8] >> shift & mask];
                rgb.insert(rgb.end(), color.begin(), color.end());
            } else if (bits_ == 16) {
                std::uint32_t const pixel = row.u16le(2 * x);
                for (std::size_t i = 0; i < 3; ++i) rgb.push_back(widened(pixel & masks_[i], masks_[i]));
            } else {
                for (std::size_t i = 0; i < 3; ++i) rgb.push_back(row[x * (bits_ / 8) + byte_of(masks_[i])]);
            }
        }
    }

    /// A colour of 5 or 6 bits in 8, rounded down.
    static std::uint8_t widened(std::uint32_t value, std::uint32_t mask) {
        return static_cast<std::uint8_t>(std::uint64_t{value} * 255 / mask);
    }

    /// Which byte of a pixel the mask of a whole byte stands for.
    static std::size_t byte_of(std::uint32_t mask) {
        return mask == 0xff ? 0 : mask == 0xff00 ? 1 : mask == 0xff0000 ? 2 : 3;
    }

    Bytes file_;
    Reader reader_;
    std::size_t offset_ = 0, width_ = 0, height_ = 0, bits_ = 0;
    bool from_top_ = false;
    Masks masks_{};
    std::array<std::array<std::uint8_t, 3>, 256> palette_{};
};

}  // namespace

Image decode_bmp(Bytes file, std::int64_t most_pixels) { return Bmp(file).decode(most_pixels); }

}  // namespace asap::detail
