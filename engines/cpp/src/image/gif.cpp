#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "image/formats.hpp"
#include "image/stb.hpp"

namespace asap::detail {

namespace {

constexpr std::size_t kPalette = 256 * 3;

using Palette = std::array<std::uint8_t, kPalette>;

/// Where the first frame lies on the screen, and how its pixels come.
struct Frame {
    std::size_t left, top, width, height;
    bool interlaced;
};

class Gif {
public:
    explicit Gif(Bytes file) : reader_(file) {}

    Image decode(std::int64_t most_pixels) {
        read_screen();
        read_frame();
        width_ = std::max(width_, frame_.left + frame_.width);
        height_ = std::max(height_, frame_.top + frame_.height);
        check_pixels(width_, height_, most_pixels);
        read_codes();
        return on_screen(frame_pixels());
    }

private:
    void read_screen() {
        Bytes const screen = reader_.header(13);
        width_ = screen.u16le(6);
        height_ = screen.u16le(8);
        palette_ = grey();
        if (screen[10] & 0x80) read_palette(screen[10]);
    }

    static Palette grey() {
        Palette palette;
        for (std::size_t i = 0; i < kPalette; ++i) palette[i] = static_cast<std::uint8_t>(i / 3);
        return palette;
    }

    /// One that starts like the greys is taken for all of them, as in Pillow; another is filled up with
    /// black.
    void read_palette(unsigned flags) {
        Bytes const colors = reader_.header(std::size_t{3} << ((flags & 7) + 1));
        palette_ = grey();
        if (std::equal(colors.begin(), colors.end(), palette_.begin())) return;
        palette_.fill(0);
        std::copy(colors.begin(), colors.end(), palette_.begin());
    }

    /// Up to the data of the first frame.
    void read_frame() {
        while (true) {
            switch (reader_.byte()) {
                case '!': read_extension(); break;
                case ',': return read_descriptor();
                case ';': throw unknown_file();
                default: break;
            }
        }
    }

    void read_extension() {
        bool const control = reader_.byte() == 0xf9;
        for (bool first = true;; first = false) {
            std::size_t const length = reader_.byte();
            if (length == 0) return;
            Bytes const block = reader_.header(length);
            if (control && first && (block[0] & 1)) {
                if (length < 4) throw unknown_file();
                transparent_ = block[3];
            }
        }
    }

    void read_descriptor() {
        Bytes const descriptor = reader_.header(9);
        frame_ = {descriptor.u16le(0), descriptor.u16le(2), descriptor.u16le(4), descriptor.u16le(6),
                  (descriptor[8] & 0x40) != 0};
        if (descriptor[8] & 0x80) read_palette(descriptor[8]);
        code_size_ = reader_.byte();
    }

    /// The blocks of the frame's codes that are there as a whole.
    void read_codes() {
        while (reader_.left()) {
            std::uint8_t const length = reader_.byte();
            if (length == 0 || length > reader_.left()) return;
            codes_.push_back(length);
            append(codes_, reader_.header(length));
        }
    }

    /// RGBA of the frame alone. It is decoded as a picture of its own, without transparency: what has no
    /// colour then has not been drawn.
    std::vector<std::uint8_t> frame_pixels() const {
        if (frame_.width == 0 || frame_.height == 0) return {};
        std::vector<std::uint8_t> gif = {'G', 'I', 'F', '8', '9', 'a'};
        gif.reserve(codes_.size() + 1024);
        auto const append_size = [&] {
            append_u16le(gif, static_cast<std::uint32_t>(frame_.width));
            append_u16le(gif, static_cast<std::uint32_t>(frame_.height));
        };
        append_size();
        gif.insert(gif.end(), {0xf7, 0, 0});  // a palette of 256 colours
        append(gif, {palette_.data(), palette_.size()});
        gif.insert(gif.end(), {',', 0, 0, 0, 0});
        append_size();
        gif.push_back(frame_.interlaced ? 0x40 : 0);
        gif.push_back(code_size_);
        append(gif, {codes_.data(), codes_.size()});
        gif.insert(gif.end(), {0, ';'});
        auto rgba = decode_with_stb(gif, frame_.height, frame_.width, 4);
        for (std::size_t i = 3; i < rgba.size(); i += 4)
            if (rgba[i] == 0) throw truncated();
        return rgba;
    }

    /// The rest of the screen has the transparent colour, or else the first.
    Image on_screen(std::vector<std::uint8_t> const& rgba) const {
        Image image{static_cast<std::int64_t>(height_), static_cast<std::int64_t>(width_),
                    std::vector<std::uint8_t>(height_ * width_ * 3)};
        std::uint8_t const* const color = &palette_[std::size_t{3} * transparent_.value_or(0)];
        if (frame_.width != width_ || frame_.height != height_)
            for (std::size_t i = 0; i < image.rgb.size(); i += 3) std::copy_n(color, 3, &image.rgb[i]);
        for (std::size_t y = 0; y < frame_.height; ++y)
            for (std::size_t x = 0; x < frame_.width; ++x)
                std::copy_n(&rgba[(y * frame_.width + x) * 4], 3,
                            &image.rgb[((frame_.top + y) * width_ + frame_.left + x) * 3]);
        return image;
    }

    Reader reader_;
    std::size_t width_ = 0, height_ = 0;
    Palette palette_;
    std::optional<std::uint8_t> transparent_;
    Frame frame_{};
    std::uint8_t code_size_ = 0;
    std::vector<std::uint8_t> codes_;
};

}  // namespace

Image decode_gif(Bytes file, std::int64_t most_pixels) { return Gif(file).decode(most_pixels); }

}  // namespace asap::detail
