"""Where on an image its visual tokens come from: the way back from tokens through patches and tiles to pixels.

A *view* is a grid of patches laid on the image: the base view, which shows it whole in one tile, and the tile
grid, which shows it once more in the finer patches of all other tiles. Newline and class tokens have no pixels.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from asap_export.model.anyres import Size, TileGeometry, best_resolution, packing

__all__ = ["Box", "ImageTokens", "View", "ViewName", "base_box", "fitted_size", "image_tokens"]

ViewName = Literal["base view", "tile grid"]
Integers = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.float64]


class Box(NamedTuple):
    """A rectangle on an image, in its pixels; it may reach beyond the image, over padding."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class View:
    """Patches in rows and columns, and the image's pixels under them.

    token: [rows, columns] int64, the place of each patch's token among the image's visual tokens, which ascends in
    raster order; tops, bottoms: [rows] and lefts, rights: [columns] float64, edges of the patches in pixels of the
    image; beyond the image they are over padding. tiles: the pixels of each tile.
    """

    name: ViewName
    token: Integers
    tops: Pixels
    bottoms: Pixels
    lefts: Pixels
    rights: Pixels
    tiles: tuple[Box, ...]

    def patch(self, row: int, column: int) -> Box:
        """The pixels under one patch."""
        left, right = float(self.lefts[column]), float(self.rights[column])
        top, bottom = float(self.tops[row]), float(self.bottoms[row])
        return Box(left, top, right - left, bottom - top)


@dataclass(frozen=True)
class ImageTokens:
    """The visual tokens of one image, ``count`` of them: views with patches, and tokens that have no pixels."""

    count: int
    views: tuple[View, ...]
    newline: Integers
    class_token: Integers


def image_tokens(image_size: Size, geometry: TileGeometry, base: Box | None = None) -> ImageTokens:
    """Views of an image of (height, width) pixels, found by reading its gather index backwards.

    ``base`` is the part of the image that the base tile shows, all of it by default.
    """
    height, width = image_size
    packed = packing([image_size], geometry)
    rows = packed.gather_index
    newline = rows == sum(packed.tiles) * geometry.features
    tile, patch = rows // geometry.features, rows % geometry.features - geometry.class_token
    whole = Box(0, 0, geometry.tile_size, geometry.tile_size)
    shown = base or Box(0, 0, width, height)
    views = [_view("base view", (tile == 0) & (patch >= 0), tile, patch, geometry, 1, whole, shown)]
    if geometry.grid_pinpoints:
        target = best_resolution(image_size, geometry)
        fitted = fitted_size(image_size, target)
        inner = Box(
            (target[1] - fitted[1]) // 2, (target[0] - fitted[0]) // 2, fitted[1], fitted[0]
        )  # as transformers pads: the odd pixel goes to the right and to the bottom
        in_grid = (tile > 0) & ~newline
        if in_grid.any():  # an extreme shape leaves no patch
            columns, image = target[1] // geometry.tile_size, Box(0, 0, width, height)
            views.append(_view("tile grid", in_grid, tile - 1, patch, geometry, columns, inner, image))
    return ImageTokens(len(rows), tuple(views), np.flatnonzero(newline), np.flatnonzero(patch < 0))


def _view(
    name: ViewName,
    chosen: npt.NDArray[np.bool_],
    tile: Integers,
    patch: Integers,
    geometry: TileGeometry,
    tile_columns: int,
    source: Box,
    image: Box,
) -> View:
    """A view of the ``chosen`` tokens.

    tile, patch: [N] int64, where in a grid of ``tile_columns`` tiles a row each token lies. The rectangle
    ``source`` of that grid, in pixels of the vision tower's input, shows the rectangle ``image`` of the image.
    """
    token = np.flatnonzero(chosen)
    side, size = geometry.side, geometry.tile_size
    tile_row, tile_column = np.divmod(tile[token], tile_columns)
    row, column = np.divmod(patch[token], side)
    ys = np.unique(tile_row * side + row)
    xs = np.unique(tile_column * side + column)

    def vertical(y: npt.NDArray[Any]) -> Pixels:
        return np.asarray(image.top + (y - source.top) * (image.height / source.height), np.float64)

    def horizontal(x: npt.NDArray[Any]) -> Pixels:
        return np.asarray(image.left + (x - source.left) * (image.width / source.width), np.float64)

    # a tile's last pixels are in no patch where its size is no multiple of the patches'
    top, left = (
        ys // side * size + ys % side * geometry.patch_size,
        xs // side * size + xs % side * geometry.patch_size,
    )
    corners = sorted(set(zip((tile_row * size).tolist(), (tile_column * size).tolist(), strict=True)))
    y, x = vertical(np.array([c[0] for c in corners])), horizontal(np.array([c[1] for c in corners]))
    tall, wide = size * image.height / source.height, size * image.width / source.width
    return View(
        name,
        token.reshape(len(ys), len(xs)),
        vertical(top),
        vertical(top + geometry.patch_size),
        horizontal(left),
        horizontal(left + geometry.patch_size),
        tuple(Box(x0, y0, wide, tall) for y0, x0 in zip(y.tolist(), x.tolist(), strict=True)),
    )


def fitted_size(image_size: Size, target: Size) -> Size:
    """(height, width) of an image that is scaled into ``target`` with its aspect ratio, as transformers rounds."""
    height, width = image_size
    tall, wide = target[0] / height, target[1] / width
    if wide < tall:
        return min(math.ceil(height * wide), target[0]), target[1]
    return target[0], min(math.ceil(width * tall), target[1])


def base_box(image_size: Size, image_processor: Any, geometry: TileGeometry) -> Box:
    """The part of an image of (height, width) pixels that its base tile shows.

    LLaVA-NeXT squeezes the whole image into the tile. LLaVA-1.5's processor pads it to a square or crops its
    middle, by its settings.
    """
    height, width = image_size
    if geometry.grid_pinpoints:
        return Box(0, 0, width, height)
    if image_processor.do_pad and type(image_processor).__name__.startswith("LlavaImageProcessor"):
        side = max(height, width)
        return Box(-((side - width) // 2), -((side - height) // 2), side, side)
    size, crop = image_processor.size, image_processor.crop_size
    tall, wide = _side(size, "height"), _side(size, "width")
    if short := _side(size, "shortest_edge"):
        tall, wide = (short * side // min(height, width) for side in (height, width))
    if not image_processor.do_center_crop:
        return Box(0, 0, width, height)
    cropped_tall, cropped_wide = _side(crop, "height"), _side(crop, "width")
    top, left = (tall - cropped_tall) // 2, (wide - cropped_wide) // 2
    across, down = width / wide, height / tall
    return Box(left * across, top * down, cropped_wide * across, cropped_tall * down)


def _side(size: Any, name: str) -> int:
    """A number of an image processor's size, which is a mapping or an object; 0 where it has none of that name."""
    found = size.get(name) if isinstance(size, dict) else getattr(size, name, None)
    return int(found or 0)
