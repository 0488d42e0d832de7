#include "anyres.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include <asap/error.hpp>

namespace asap::detail {

namespace {

struct Grid {
    std::int64_t rows, columns;
};

void check_size(Size image) {
    if (image.height >= 1 && image.width >= 1 && std::max(image.height, image.width) <= std::numeric_limits<int>::max())
        return;
    std::string const limit =
        image.height < 1 || image.width < 1 ? "at least 1 x 1 pixel" : "fewer than 2^31 pixels a side";
    throw Error("expected an image of " + limit + ", found " + std::to_string(image.width) + " x " +
                std::to_string(image.height) + "; give another");
}

/// Python's int(round(value, 7)): rounding goes by the exact decimal expansion of `value`, which multiplying
/// by 10^7 would not. Rounding before cutting to an integer decides about whole rows, so it must be the same.
std::int64_t cut_after_rounding(double value) {
    char text[400];  // the longest double has 309 digits before the point
    auto const written = std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, 7);
    double rounded = 0;
    std::from_chars(text, written.ptr, rounded);
    return static_cast<std::int64_t>(rounded);
}

/// Towards negative infinity, as Python's //.
std::int64_t half(std::int64_t value) { return (value - (value < 0 ? 1 : 0)) / 2; }

Grid tile_grid(Size image, TileGeometry const& geometry) {
    Size const best = best_resolution(image, geometry);
    return {best.height / geometry.tile_size, best.width / geometry.tile_size};
}

Grid patch_grid(Size image, TileGeometry const& geometry) {
    Grid const tiles = tile_grid(image, geometry);
    return {tiles.rows * geometry.side(), tiles.columns * geometry.side()};
}

/// Patch rows to drop at the top and bottom, patch columns at the left and right.
Grid margins(Size image, Grid grid) {
    auto const height = static_cast<double>(image.height), width = static_cast<double>(image.width);
    auto const rows = static_cast<double>(grid.rows), columns = static_cast<double>(grid.columns);
    if (width / height > columns / rows) return {half(grid.rows - cut_after_rounding(height * (columns / width))), 0};
    return {0, half(grid.columns - cut_after_rounding(width * (rows / height)))};
}

/// Appends the rows of one image's visual tokens: its tiles' rows start at `first`, `newline` ends each grid
/// row.
void append_index(std::vector<std::int64_t>& index, Size image, TileGeometry const& geometry, std::int64_t first,
                  std::int64_t newline) {
    std::int64_t const side = geometry.side(), base = geometry.features();
    for (std::int64_t row = 0; row < base; ++row) index.push_back(first + row);
    if (geometry.grid_pinpoints.empty()) return;
    Grid const grid = patch_grid(image, geometry), margin = margins(image, grid);
    std::int64_t const tile_columns = grid.columns / side;
    for (std::int64_t row = margin.rows; row < grid.rows - margin.rows; ++row) {
        for (std::int64_t column = margin.columns; column < grid.columns - margin.columns; ++column) {
            // Tiles lie one after another; in the picture their patch rows interleave.
            std::int64_t const tile = row / side * tile_columns + column / side;
            index.push_back(first + base + tile * side * side + row % side * side + column % side);
        }
        index.push_back(newline);
    }
}

}  // namespace

TileGeometry TileGeometry::of(ModelSpec const& spec) {
    return {spec.tile_size, spec.patch_size, spec.grid_pinpoints, spec.class_token};
}

Size best_resolution(Size image, TileGeometry const& geometry) {
    check_size(image);
    auto const height = static_cast<double>(image.height), width = static_cast<double>(image.width);
    auto const kept_and_saved = [&](Size pinpoint) {
        double const scale =
            std::min(static_cast<double>(pinpoint.width) / width, static_cast<double>(pinpoint.height) / height);
        std::int64_t const fitted =
            static_cast<std::int64_t>(width * scale) * static_cast<std::int64_t>(height * scale);
        std::int64_t const kept = std::min(fitted, image.height * image.width);
        return std::make_pair(kept, kept - pinpoint.height * pinpoint.width);
    };
    auto const worse = [&](Size a, Size b) { return kept_and_saved(a) < kept_and_saved(b); };
    auto const& pinpoints = geometry.grid_pinpoints;
    return *std::max_element(pinpoints.begin(), pinpoints.end(), worse);  // the first of equals, as in Python
}

void check_resizable(Size image, TileGeometry const& geometry) {
    check_size(image);
    auto const [shortest, longest] = std::minmax(image.height, image.width);
    std::int64_t const tile = geometry.tile_size;
    bool fits = longest <= kLargestResized / tile;
    if (geometry.grid_pinpoints.empty()) {
        fits = fits && longest * longest <= kLargestResized && longest <= kLargestResized * shortest / (tile * tile);
    } else {
        Size const best = best_resolution(image, geometry);
        fits = fits && std::max(image.height * best.width, image.width * best.height) <= kLargestResized;
    }
    if (!fits)
        throw Error("expected an image that becomes at most " + std::to_string(kLargestResized) +
                    " pixels while it is resized, found " + std::to_string(image.width) + " x " +
                    std::to_string(image.height) + "; scale it down or crop it");
}

std::int64_t tile_count(Size image, TileGeometry const& geometry) {
    check_size(image);
    if (geometry.grid_pinpoints.empty()) return 1;
    Grid const grid = tile_grid(image, geometry);
    return 1 + grid.rows * grid.columns;
}

std::int64_t visual_token_count(Size image, TileGeometry const& geometry) {
    check_size(image);
    if (geometry.grid_pinpoints.empty()) return geometry.features();
    Grid const grid = patch_grid(image, geometry), margin = margins(image, grid);
    // Extreme shapes leave no row, or rows without patches.
    return geometry.features() + (grid.rows - 2 * margin.rows) * (grid.columns - 2 * margin.columns + 1);
}

Packing packing(std::vector<Size> const& images, TileGeometry const& geometry) {
    Packing packed;
    for (Size const image : images) packed.tiles.push_back(tile_count(image, geometry));
    std::int64_t const newline =
        std::accumulate(packed.tiles.begin(), packed.tiles.end(), std::int64_t{0}) * geometry.features();
    std::int64_t first = 0;
    for (std::size_t i = 0; i < images.size(); ++i) {
        std::size_t const before = packed.gather_index.size();
        append_index(packed.gather_index, images[i], geometry, first, newline);
        packed.visual_tokens.push_back(static_cast<std::int64_t>(packed.gather_index.size() - before));
        first += packed.tiles[i] * geometry.features();
    }
    return packed;
}

}  // namespace asap::detail
