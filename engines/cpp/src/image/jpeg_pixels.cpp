#include "image/jpeg_pixels.hpp"

#include <algorithm>
#include <array>

namespace asap::detail {

namespace {

constexpr int kFraction = 13;  // bits of the constants
constexpr int kExtra = 2;      // bits that the columns' results keep for the rows

constexpr std::int64_t fixed(double value) { return static_cast<std::int64_t>(value * (1 << kFraction) + 0.5); }

template <typename Integer>
std::uint8_t clamped(Integer value) {
    return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

/// Eight values one after another of eight coefficients, scaled up by 2^kFraction.
std::array<std::int64_t, 8> dct8(std::array<std::int64_t, 8> const& c) {
    std::int64_t const both = (c[2] + c[6]) * fixed(0.541196100);
    std::int64_t const e2 = both - c[6] * fixed(1.847759065), e3 = both + c[2] * fixed(0.765366865);
    std::int64_t const e0 = (c[0] + c[4]) * (1 << kFraction), e1 = (c[0] - c[4]) * (1 << kFraction);
    std::int64_t const even[4] = {e0 + e3, e1 + e2, e1 - e2, e0 - e3};

    std::int64_t const all = (c[7] + c[3] + c[5] + c[1]) * fixed(1.175875602);
    std::int64_t const z1 = -(c[7] + c[1]) * fixed(0.899976223), z2 = -(c[5] + c[3]) * fixed(2.562915447);
    std::int64_t const z3 = all - (c[7] + c[3]) * fixed(1.961570560), z4 = all - (c[5] + c[1]) * fixed(0.390180644);
    std::int64_t const odd[4] = {c[1] * fixed(1.501321110) + z1 + z4, c[3] * fixed(3.072711026) + z2 + z3,
                                 c[5] * fixed(2.053119869) + z2 + z4, c[7] * fixed(0.298631336) + z1 + z3};
    return {even[0] + odd[0], even[1] + odd[1], even[2] + odd[2], even[3] + odd[3],
            even[3] - odd[3], even[2] - odd[2], even[1] - odd[1], even[0] - odd[0]};
}

std::int64_t rounded(std::int64_t value, int bits) { return (value + (std::int64_t{1} << (bits - 1))) >> bits; }

/// One row of samples, spread over all of the picture's columns.
class Spreader {
public:
    Spreader(Plane const& plane, std::size_t width)
        : plane_(plane),
          smooth_across_(plane.across == 2 && plane.width > 2 && plane.down <= 2),
          smooth_down_(plane.down == 2 && (plane.across == 1 || smooth_across_)),
          sums_(plane.width),
          row_(std::max(plane.width * plane.across, width)) {}

    std::uint8_t const* row(std::size_t y) {
        std::uint8_t const* const near = sample_row(y / plane_.down);
        if (smooth_down_ && smooth_across_) {
            spread_both(near, neighbour(y));
        } else if (smooth_down_) {
            spread_down(near, neighbour(y), y % 2 ? 2 : 1);
        } else if (smooth_across_) {
            spread_across(near);
        } else if (plane_.across == 1) {
            return near;
        } else {
            for (std::size_t x = 0; x < row_.size(); ++x) row_[x] = near[std::min(x / plane_.across, plane_.width - 1)];
        }
        return row_.data();
    }

private:
    std::uint8_t const* sample_row(std::size_t y) const {
        return &plane_.samples[std::min(y, plane_.height - 1) * plane_.width];
    }

    /// The row of samples that is next nearest to the picture's row `y`; at the edges the nearest itself.
    std::uint8_t const* neighbour(std::size_t y) const {
        std::size_t const own = y / 2;
        return sample_row(y % 2 ? own + 1 : own == 0 ? 0 : own - 1);
    }

    /// Three parts of the near sample, one of the far one; halves go up in one row, down in the next.
    void spread_down(std::uint8_t const* near, std::uint8_t const* far, int bias) {
        for (std::size_t x = 0; x < plane_.width; ++x)
            row_[x] = static_cast<std::uint8_t>((near[x] * 3 + far[x] + bias) >> 2);
    }

    void spread_across(std::uint8_t const* near) {
        for (std::size_t x = 0; x < plane_.width; ++x) sums_[x] = near[x];
        spread_sums(1, 2, 2);
        row_[0] = near[0];
        row_[2 * plane_.width - 1] = near[plane_.width - 1];
    }

    void spread_both(std::uint8_t const* near, std::uint8_t const* far) {
        for (std::size_t x = 0; x < plane_.width; ++x) sums_[x] = near[x] * 3 + far[x];
        spread_sums(8, 7, 4);
    }

    /// Two pixels of each sum: three parts of it and one of its neighbour on that side, or of itself at the
    /// edge.
    void spread_sums(int left_bias, int right_bias, int bits) {
        auto const part = [&](int own, int next, int bias) {
            return static_cast<std::uint8_t>((own * 3 + next + bias) >> bits);
        };
        int const* const sums = sums_.data();
        std::uint8_t* const row = row_.data();
        std::size_t const last = plane_.width - 1;
        row[0] = part(sums[0], sums[0], left_bias);
        for (std::size_t x = 0; x < last; ++x) {
            row[2 * x + 1] = part(sums[x], sums[x + 1], right_bias);
            row[2 * x + 2] = part(sums[x + 1], sums[x], left_bias);
        }
        row[2 * last + 1] = part(sums[last], sums[last], right_bias);
    }

    Plane const& plane_;
    bool smooth_across_, smooth_down_;
    std::vector<int> sums_;
    std::vector<std::uint8_t> row_;
};

using Rows = std::array<std::uint8_t const*, 4>;

/// BT.601 in 16 bits, as libjpeg's tables have it.
void ycc_to_rgb(Rows const& rows, std::size_t width, std::uint8_t* rgb) {
    constexpr int half = 1 << 15, red = 91881, blue = 116130, green_cr = 46802, green_cb = 22554;
    for (std::size_t x = 0; x < width; ++x) {
        int const y = rows[0][x], cb = rows[1][x] - 128, cr = rows[2][x] - 128;
        rgb[3 * x] = clamped(y + ((red * cr + half) >> 16));
        rgb[3 * x + 1] = clamped(y + ((half - green_cb * cb - green_cr * cr) >> 16));
        rgb[3 * x + 2] = clamped(y + ((blue * cb + half) >> 16));
    }
}

void interleave(Rows const& rows, std::size_t width, std::uint8_t* rgb) {
    for (std::size_t x = 0; x < width; ++x)
        for (std::size_t i = 0; i < 3; ++i) rgb[3 * x + i] = rows[i][x];
}

/// Pillow's: `rgb`, which holds inverted colours of print, darkened by inverted black.
void darken(std::uint8_t const* black, std::size_t width, std::uint8_t* rgb) {
    for (std::size_t x = 0; x < width; ++x) {
        for (std::size_t i = 0; i < 3; ++i) {
            int const product = (255 - rgb[3 * x + i]) * black[x] + 128;
            rgb[3 * x + i] = clamped(black[x] - (((product >> 8) + product) >> 8));
        }
    }
}

void write_row(Coding coding, Rows const& rows, std::size_t width, std::uint8_t* rgb) {
    switch (coding) {
        case Coding::grey: return interleave({rows[0], rows[0], rows[0], nullptr}, width, rgb);
        case Coding::rgb: return interleave(rows, width, rgb);
        case Coding::ycc: return ycc_to_rgb(rows, width, rgb);
        case Coding::cmyk: interleave(rows, width, rgb); break;
        case Coding::ycck:
            ycc_to_rgb(rows, width, rgb);
            std::transform(rgb, rgb + 3 * width, rgb,
                           [](std::uint8_t value) { return static_cast<std::uint8_t>(255 - value); });
    }
    darken(rows[3], width, rgb);
}

}  // namespace

void inverse_dct(std::uint8_t* out, int stride, short const* coefficients) {
    std::array<std::array<std::int64_t, 8>, 8> rows;
    for (std::size_t x = 0; x < 8; ++x) {
        std::array<std::int64_t, 8> column;
        int any = 0;
        for (std::size_t y = 0; y < 8; ++y) column[y] = coefficients[8 * y + x];
        for (std::size_t y = 1; y < 8; ++y) any |= coefficients[8 * y + x];
        if (!any) {  // mostly so
            for (auto& row : rows) row[x] = column[0] * (1 << kExtra);
            continue;
        }
        auto const values = dct8(column);
        for (std::size_t y = 0; y < 8; ++y) rows[y][x] = rounded(values[y], kFraction - kExtra);
    }
    for (auto const& row : rows) {
        auto const values = dct8(row);
        // Both passes together scale by 8.
        for (std::size_t x = 0; x < 8; ++x) out[x] = clamped(rounded(values[x], kFraction + kExtra + 3) + 128);
        out += stride;
    }
}

std::vector<std::uint8_t> rgb_of(std::vector<Plane> const& planes, Coding coding, std::size_t height,
                                 std::size_t width) {
    std::vector<Spreader> spreaders;
    for (Plane const& plane : planes) spreaders.emplace_back(plane, width);
    std::vector<std::uint8_t> rgb(height * width * 3);
    for (std::size_t y = 0; y < height; ++y) {
        Rows rows{};
        for (std::size_t i = 0; i < spreaders.size(); ++i) rows[i] = spreaders[i].row(y);
        write_row(coding, rows, width, &rgb[y * width * 3]);
    }
    return rgb;
}

}  // namespace asap::detail
