/// Any-resolution images in integers: which tiles an image is cut into, and which visual tokens come of them.
///
/// An image is seen twice: shrunk to one *base tile*, and fitted into the best of a few *grid pinpoints* that
/// is cut into tiles. Of the grid's patches the ones that cover padding are dropped ("unpadding"), and a
/// newline token ends each row that is left. LLaVA-1.5 has no pinpoints: it sees one tile, without newlines.
/// The counts must be the Python runtime's own to the token, so the floating-point steps here are Python's,
/// operation by operation.
#pragma once

#include <cstdint>
#include <vector>

#include "manifest.hpp"

namespace asap::detail {

/// The square tile of a vision tower and the resolutions it is repeated to; pixels.
///
/// Without `grid_pinpoints` an image is one tile. `class_token`: the tower's class token is a visual token
/// too; in a grid, whose tiles are put together by their patches, it has no place.
struct TileGeometry {
    std::int64_t tile_size;
    std::int64_t patch_size;
    std::vector<Size> grid_pinpoints;
    bool class_token = false;

    static TileGeometry of(ModelSpec const& spec);

    /// Patches along one edge of a tile.
    std::int64_t side() const { return tile_size / patch_size; }

    /// Rows that the vision encoder gives for one tile: its patches, behind the class token where it counts.
    std::int64_t features() const { return side() * side() + class_token; }
};

/// Where the visual tokens of a prompt come from, over all its images in order.
///
/// `tiles` and `visual_tokens` are per image, the base tile and the newline tokens included. `gather_index`
/// [visual tokens of all images] points into the rows of all tiles laid end to end; the row after the last of
/// them, sum(tiles) * features, stands for the newline.
struct Packing {
    std::vector<std::int64_t> tiles, visual_tokens, gather_index;
};

/// The grid pinpoint that keeps the most of the image, and of these the one that wastes the least. There must
/// be one. Throws `Error`, as all functions below, for an image with a side below 1 or above 2^31 - 1 pixels.
Size best_resolution(Size image, TileGeometry const& geometry);

/// The most pixels that an image may become on its way to tiles: as many as the largest image file has.
constexpr std::int64_t kLargestResized = 178'956'970;

/// Throws `Error` for an image of so extreme a shape that some image processor would make more than `kLargestResized`
/// pixels of it: resized along one side only, padded to a square, or with its shortest edge as long as a tile's.
void check_resizable(Size image, TileGeometry const& geometry);

/// Tiles of an image, the base tile included.
std::int64_t tile_count(Size image, TileGeometry const& geometry);

/// Visual tokens of an image, the newline tokens included.
std::int64_t visual_token_count(Size image, TileGeometry const& geometry);

/// Tiles, token counts and gather index of all images of a prompt (any number, also none).
Packing packing(std::vector<Size> const& images, TileGeometry const& geometry);

}  // namespace asap::detail
