"""Tokens find their way back to the pixels that transformers' own processors made them of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor, CLIPImageProcessor, LlavaImageProcessor

from asap_export.explain.views import ImageTokens, View, base_box, fitted_size, image_tokens
from asap_export.model.anyres import TileGeometry, best_resolution, visual_token_count

LLAVA_NEXT = TileGeometry(336, 14, ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)))
SMALL = TileGeometry(56, 7, ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168)))
UNEVEN = TileGeometry(32, 10, ((64, 32), (32, 32), (96, 96), (32, 128)))  # 3 x 3 patches, 2 pixels unseen
LLAVA_1_5 = TileGeometry(56, 7, ())
CLASS_TOKEN = TileGeometry(56, 7, (), class_token=True)

sides = st.one_of(st.integers(1, 60), st.integers(1, 2_000), st.integers(1, 20_000))
sizes = st.tuples(sides, sides)
CROP = CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
PAD = LlavaImageProcessor(do_pad=True, size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})


@settings(max_examples=300, deadline=None)
@given(size=sizes, geometry=st.sampled_from([LLAVA_NEXT, SMALL, UNEVEN, LLAVA_1_5, CLASS_TOKEN]))
def test_views_and_tokens_without_pixels_are_all_tokens_and_each_once(size, geometry):
    places = image_tokens(size, geometry)
    parts = [view.token.reshape(-1) for view in places.views]
    numbers = np.concatenate([*parts, places.newline, places.class_token])
    assert sorted(numbers) == list(range(places.count)) and places.count == visual_token_count(size, geometry)
    assert len(places.class_token) == geometry.class_token
    assert all((np.diff(part) > 0).all() for part in parts)  # raster order is token order
    grids = [view for view in places.views if view.name == "tile grid"]
    if geometry.grid_pinpoints and grids:
        assert len(places.newline) == grids[0].token.shape[0]


@settings(max_examples=300, deadline=None)
@given(size=sizes, geometry=st.sampled_from([LLAVA_NEXT, SMALL, UNEVEN, LLAVA_1_5]))
def test_patches_lie_beside_each_other_on_the_image_or_its_padding(size, geometry):
    height, width = size
    for view in image_tokens(size, geometry).views:
        for starts, ends, whole, other in (
            (view.tops, view.bottoms, height, width),
            (view.lefts, view.rights, width, height),
        ):
            assert (starts < ends).all()
            slack = 1e-6 * max(size)
            assert (ends[:-1] <= starts[1:] + slack).all()
            if view.name == "base view":
                assert starts[0] >= -slack and ends[-1] <= whole + slack
            else:  # padded to the shape of the best resolution, and to no more
                target = best_resolution(size, geometry)
                fitted = fitted_size(size, target)
                index = 0 if whole == height and other == width else 1
                room = (target[index] - fitted[index] + 1) / 2 * whole / fitted[index]
                assert starts[0] >= -room - slack and ends[-1] <= whole + room + slack
            inside = (ends > 0) & (starts < whole)
            assert inside.any()


def ramp(size: tuple[int, int]) -> Image.Image:
    """Red grows from left to right and green from top to bottom, from 0 to 255."""
    height, width = size
    red, green = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    pixels = np.stack([255 * red, 255 * green, np.zeros_like(red)], axis=-1)
    return Image.fromarray(pixels.round().astype(np.uint8))


def seen_by(processor, image: Image.Image, geometry: TileGeometry) -> np.ndarray:
    """Mean red and green of every patch as the model is given it, [tiles, side, side, 2], in parts of 255."""
    pixels = np.asarray(processor(images=[image], return_tensors="np")["pixel_values"][0], np.float64)
    pixels = pixels.reshape(-1, 3, geometry.tile_size, geometry.tile_size)[:, :2]
    mean, std = (np.array(values)[:2, None, None] for values in (processor.image_mean, processor.image_std))
    pixels = pixels * std + mean
    patches = pixels.reshape(len(pixels), 2, geometry.side, geometry.patch_size, geometry.side, -1)
    return patches.mean(axis=(3, 5)).transpose(0, 2, 3, 1)


def check(view: View, colors: np.ndarray, size: tuple[int, int]) -> int:
    """Patches that lie well inside the image have the colours of their places; returns how many do."""
    height, width = size
    checked = 0
    for row, column in np.ndindex(view.token.shape):
        left, top, wide, tall = view.patch(row, column)
        if left < wide or top < tall or left + 2 * wide > width or top + 2 * tall > height:
            continue  # scaling blurs what is at the border
        expected = (left + wide / 2) / width, (top + tall / 2) / height
        np.testing.assert_allclose(colors[row, column], expected, atol=0.012)
        checked += 1
    return checked


def tile_grid(colors: np.ndarray, places: ImageTokens, size, geometry: TileGeometry) -> np.ndarray:
    """Colours of the tile grid's patches in its rows and columns, from the tiles that the model is given."""
    columns = best_resolution(size, geometry)[1] // geometry.tile_size
    tiles = colors[1:].reshape(-1, columns, geometry.side, geometry.side, 2)
    whole = tiles.transpose(0, 2, 1, 3, 4).reshape(-1, columns * geometry.side, 2)
    rows, wide = places.views[1].token.shape
    top, left = (whole.shape[0] - rows) // 2, (whole.shape[1] - wide) // 2
    return whole[top : top + rows, left : left + wide]


@settings(max_examples=25, deadline=None)
@given(size=st.tuples(st.integers(100, 400), st.integers(100, 400)))
def test_pixels_of_llava_next_are_where_its_processor_took_them_from(random_checkpoint, size):
    processor = AutoImageProcessor.from_pretrained(
        random_checkpoint, image_grid_pinpoints=list(SMALL.grid_pinpoints)
    )
    colors = seen_by(processor, ramp(size), SMALL)
    places = image_tokens(size, SMALL, base_box(size, processor, SMALL))
    base, grid = places.views
    assert check(base, colors[0], size) and check(grid, tile_grid(colors, places, size, SMALL), size)


@settings(max_examples=15, deadline=None)
@given(size=st.tuples(st.integers(150, 300), st.integers(150, 300)), processor=st.sampled_from([CROP, PAD]))
def test_pixels_of_llava_1_5_are_where_its_processor_took_them_from(size, processor):
    colors = seen_by(processor, ramp(size), LLAVA_1_5)
    (base,) = image_tokens(size, LLAVA_1_5, base_box(size, processor, LLAVA_1_5)).views
    assert check(base, colors[0], size)


@pytest.mark.parametrize(("size", "target"), [((480, 640), (672, 672)), ((1, 3000), (56, 168))])
def test_an_image_is_fitted_as_transformers_fits_it(size, target):
    from transformers.image_processing_utils import get_patch_output_size
    from transformers.image_utils import ChannelDimension

    image = np.empty((3, *size), np.uint8)
    assert fitted_size(size, target) == get_patch_output_size(image, target, ChannelDimension.FIRST)
