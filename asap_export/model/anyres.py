"""Any-resolution images in integers: which tiles an image is cut into, and which visual tokens come of them.

An image is seen twice: shrunk to one *base tile*, and fitted into the best of a few *grid pinpoints* that is
cut into tiles. Of the grid's patches the ones that cover padding are dropped ("unpadding"), and a newline
token ends each row that is left. LLaVA-1.5 has no pinpoints: it sees one tile, without newlines.
The counts must be the checkpoint's processor's own to the token, so the floating-point steps here are
transformers', operation by operation.

Sizes are (height, width) in pixels, as in transformers' ``image_sizes``. No torch here: runtimes use it too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from asap_export.errors import UserError
from asap_export.spec import ModelSpec

__all__ = [
    "LARGEST_RESIZED",
    "Packing",
    "Size",
    "TileGeometry",
    "best_resolution",
    "check_resizable",
    "max_tiles",
    "max_visual_tokens",
    "packing",
    "tile_count",
    "visual_token_count",
]

Size = tuple[int, int]

LARGEST_RESIZED = 178_956_970  # pixels that an image may become on its way to tiles: the largest file's


@dataclass(frozen=True)
class TileGeometry:
    """The square tile of a vision tower and the resolutions it is repeated to; pixels, (height, width).

    Without ``grid_pinpoints`` an image is one tile. ``class_token``: the tower's class token is a visual token
    too; in a grid, whose tiles are put together by their patches, it has no place.
    """

    tile_size: int
    patch_size: int
    grid_pinpoints: tuple[Size, ...]
    class_token: bool = False

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        return cls(spec.tile_size, spec.patch_size, spec.grid_pinpoints, spec.class_token)

    @property
    def side(self) -> int:
        """Patches along one edge of a tile."""
        return self.tile_size // self.patch_size

    @property
    def features(self) -> int:
        """Rows that the vision encoder gives for one tile: its patches, behind the class token where it counts."""
        return self.side**2 + self.class_token


@dataclass(frozen=True)
class Packing:
    """Where the visual tokens of a prompt come from, over all its images in order.

    ``tiles`` and ``visual_tokens`` are per image, the base tile and the newline tokens included.
    ``gather_index`` [visual tokens of all images], int64, points into the rows of all tiles laid end to end;
    the row after the last of them, ``sum(tiles) * geometry.features``, stands for the newline.
    """

    tiles: tuple[int, ...]
    visual_tokens: tuple[int, ...]
    gather_index: npt.NDArray[np.int64]


def best_resolution(image_size: Size, geometry: TileGeometry) -> Size:
    """The grid pinpoint that keeps the most of the image, and of these the one that wastes the least.

    Raises UserError for a side below one pixel.
    """
    _check_size(image_size)
    height, width = image_size

    def kept_and_saved(pinpoint: Size) -> tuple[int, int]:
        scale = min(pinpoint[1] / width, pinpoint[0] / height)
        kept = min(int(width * scale) * int(height * scale), height * width)
        return kept, kept - pinpoint[0] * pinpoint[1]

    return max(geometry.grid_pinpoints, key=kept_and_saved)  # the first of equals, as in transformers


def check_resizable(image_size: Size, geometry: TileGeometry) -> None:
    """Raise UserError for an image of so extreme a shape that some image processor would make more than
    ``LARGEST_RESIZED`` pixels of it: resized along one side only, padded to a square, or with its shortest edge
    as long as a tile's."""
    _check_size(image_size)
    height, width = image_size
    longest, tile = max(image_size), geometry.tile_size
    if geometry.grid_pinpoints:
        tall, wide = best_resolution(image_size, geometry)
        most = max(longest * tile, height * wide, width * tall)
    else:
        most = max(longest * max(tile, longest), -(-tile * tile * longest // min(image_size)))
    if most > LARGEST_RESIZED:
        raise UserError(
            f"expected an image that becomes at most {LARGEST_RESIZED} pixels while it is resized, found "
            f"{width} x {height}; scale it down or crop it"
        )


def _check_size(image_size: Size) -> None:
    height, width = image_size
    if height < 1 or width < 1:
        raise UserError(f"expected an image of at least 1 x 1 pixel, found {width} x {height}; give another")


def _grid(image_size: Size, geometry: TileGeometry) -> Size:
    """Rows and columns of tiles."""
    height, width = best_resolution(image_size, geometry)
    return height // geometry.tile_size, width // geometry.tile_size


def _margins(image_size: Size, rows: int, columns: int) -> Size:
    """Patch rows to drop at the top and bottom, patch columns at the left and right, of rows x columns."""
    height, width = image_size
    # Rounding to 7 digits before cutting to an integer decides about whole rows, so it must be the same.
    if width / height > columns / rows:
        return (rows - int(round(height * (columns / width), 7))) // 2, 0
    return 0, (columns - int(round(width * (rows / height), 7))) // 2


def _unpadded(image_size: Size, geometry: TileGeometry) -> Size:
    """Patch rows and columns of the tile grid that are left after unpadding; extreme shapes leave none."""
    rows, columns = (tiles * geometry.side for tiles in _grid(image_size, geometry))
    top, left = _margins(image_size, rows, columns)
    return rows - 2 * top, columns - 2 * left


def tile_count(image_size: Size, geometry: TileGeometry) -> int:
    """Tiles of an image of (height, width) pixels, the base tile included."""
    if not geometry.grid_pinpoints:
        _check_size(image_size)
        return 1
    rows, columns = _grid(image_size, geometry)
    return 1 + rows * columns


def visual_token_count(image_size: Size, geometry: TileGeometry) -> int:
    """Visual tokens of an image of (height, width) pixels, the newline tokens included."""
    if not geometry.grid_pinpoints:
        _check_size(image_size)
        return geometry.features
    rows, columns = _unpadded(image_size, geometry)
    return geometry.features + rows * (columns + 1)


def max_visual_tokens(geometry: TileGeometry) -> int:
    """The most visual tokens that one image can have: a pinpoint filled to the edge, nothing unpadded."""
    counts = (visual_token_count(pinpoint, geometry) for pinpoint in geometry.grid_pinpoints)
    return max(counts, default=geometry.features)


def max_tiles(geometry: TileGeometry) -> int:
    """The most tiles that one image can have, the base tile included."""
    return max((tile_count(pinpoint, geometry) for pinpoint in geometry.grid_pinpoints), default=1)


def _image_index(image_size: Size, geometry: TileGeometry, newline: int) -> npt.NDArray[np.int64]:
    """Rows of one image's visual tokens among its own tiles' rows, ``newline`` ending each grid row."""
    side, base = geometry.side, geometry.features
    if not geometry.grid_pinpoints:
        return np.arange(base, dtype=np.int64)
    grid_rows, grid_columns = _grid(image_size, geometry)
    rows, columns = grid_rows * side, grid_columns * side
    patches = np.arange(base, base + rows * columns, dtype=np.int64)
    # Tiles lie one after another; in the picture their patch rows interleave.
    picture = (
        patches.reshape(grid_rows, grid_columns, side, side).transpose(0, 2, 1, 3).reshape(rows, columns)
    )
    top, left = _margins(image_size, rows, columns)
    kept = picture[top : rows - top, left : columns - left]
    lines = np.pad(kept, ((0, 0), (0, 1)), constant_values=newline)
    return np.concatenate([np.arange(base, dtype=np.int64), lines.reshape(-1)])


def packing(image_sizes: Sequence[Size], geometry: TileGeometry) -> Packing:
    """Tiles, token counts and gather index of all images of a prompt (any number, also none)."""
    tiles = tuple(tile_count(size, geometry) for size in image_sizes)
    newline = sum(tiles) * geometry.features
    parts = [np.empty(0, dtype=np.int64)]
    first = 0
    for size, count in zip(image_sizes, tiles, strict=True):
        part = _image_index(size, geometry, newline - first) + first
        parts.append(part)
        first += count * geometry.features
    return Packing(tiles, tuple(len(part) for part in parts[1:]), np.concatenate(parts))
