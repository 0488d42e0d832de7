/// From a JPEG's coefficients to pixels, rounded as libjpeg rounds.
///
/// stb's own arithmetic is up to three grey levels away from it, more at the right edge. That would be
/// another picture than Python's, and could be another answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace asap::detail {

/// One component of a picture: samples [height, width], each for `across` x `down` pixels.
struct Plane {
    std::size_t height, width;
    std::size_t across, down;
    std::vector<std::uint8_t> samples;
};

/// What the components of a JPEG are: Y, red, green, blue, or Y, Cb, Cr, or the four colours of print,
/// inverted, of which `ycck` has the first three as Y, Cb, Cr.
enum class Coding { grey, rgb, ycc, cmyk, ycck };

/// Samples of one block, 8 x 8 at `out` and rows `stride` apart, from its coefficients row by row. Bit for
/// bit libjpeg's accurate integer method (Loeffler, Ligtenberg, Moschytz 1989).
void inverse_dct(std::uint8_t* out, int stride, short const* coefficients);

/// RGB [height, width, 3] of the planes, whose samples are spread over their pixels as libjpeg does it:
/// smoothly where there are two pixels to a sample, else alike.
std::vector<std::uint8_t> rgb_of(std::vector<Plane> const& planes, Coding coding, std::size_t height,
                                 std::size_t width);

}  // namespace asap::detail
