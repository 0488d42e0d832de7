"""Any-resolution packing, compared with what transformers itself does for the same image sizes."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextProcessor
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel, image_size_to_num_patches

from asap_export.errors import UserError
from asap_export.model.anyres import (
    TileGeometry,
    best_resolution,
    max_tiles,
    max_visual_tokens,
    packing,
    tile_count,
    visual_token_count,
)

LLAVA_NEXT = TileGeometry(336, 14, ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)))
SMALL = TileGeometry(56, 7, ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168)))
ODD = TileGeometry(35, 7, ((35, 35), (35, 105), (105, 105), (140, 35), (70, 35)))  # 5 x 5 patches
UNEVEN = TileGeometry(32, 10, ((64, 32), (32, 32), (96, 96), (32, 128)))  # 3 x 3 patches, 2 pixels unseen
MANY = TileGeometry(384, 14, tuple((384 * h, 384 * w) for h in range(1, 5) for w in range(1, 5)))

geometries = st.sampled_from([LLAVA_NEXT, SMALL, ODD, UNEVEN, MANY])
sides = st.one_of(st.integers(1, 2_000), st.integers(1, 60), st.integers(1, 20_000))
sizes = st.tuples(sides, sides)


@cache
def transformers_model(geometry: TileGeometry) -> LlavaNextModel:
    config = LlavaNextConfig(
        text_config=LlamaConfig(hidden_size=8, num_hidden_layers=0, num_attention_heads=1, vocab_size=8),
        vision_config=CLIPVisionConfig(
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=0,
            num_attention_heads=1,
            image_size=geometry.tile_size,
            patch_size=geometry.patch_size,
        ),
        image_grid_pinpoints=[list(pinpoint) for pinpoint in geometry.grid_pinpoints],
    )
    with torch.device("meta"):
        return LlavaNextModel(config)


def transformers_packing(image_sizes: list[tuple[int, int]], geometry: TileGeometry) -> list[np.ndarray]:
    """The order in which transformers packs features, found by packing the features' own row numbers."""
    model = transformers_model(geometry)
    pinpoints = model.config.image_grid_pinpoints
    tiles = [image_size_to_num_patches(size, pinpoints, geometry.tile_size) for size in image_sizes]
    rows = torch.arange(sum(tiles) * geometry.features, dtype=torch.float64)
    features = rows.view(-1, geometry.features, 1).split(tiles)
    newline = torch.tensor([float(len(rows))], dtype=torch.float64)
    packed, _ = model.pack_image_features(features, torch.tensor(image_sizes), "default", newline)
    return [image[:, 0].long().numpy() for image in packed]


class PinpointsOnly:
    """What LlavaNextProcessor asks of its image processor when it counts tokens."""

    def __init__(self, geometry: TileGeometry) -> None:
        self.image_grid_pinpoints = [list(pinpoint) for pinpoint in geometry.grid_pinpoints]


def processor_count(image_size: tuple[int, int], geometry: TileGeometry) -> int:
    processor = LlavaNextProcessor.__new__(LlavaNextProcessor)
    processor.image_processor = PinpointsOnly(geometry)
    processor.patch_size = geometry.patch_size
    processor.num_additional_image_tokens = 1
    return processor._get_number_of_features(*image_size, geometry.tile_size, geometry.tile_size) - 1


@settings(max_examples=2_500, deadline=None)
@given(image_size=sizes, geometry=geometries)
def test_one_image_of_any_size_is_packed_as_transformers_does(image_size, geometry):
    ours = packing([image_size], geometry)
    (theirs,) = transformers_packing([image_size], geometry)
    np.testing.assert_array_equal(ours.gather_index, theirs)
    assert ours.visual_tokens == (len(theirs),) == (processor_count(image_size, geometry),)
    assert visual_token_count(image_size, geometry) == len(theirs) <= max_visual_tokens(geometry)


@settings(max_examples=500, deadline=None)
@given(
    image_sizes=st.lists(sizes, max_size=4),
    geometry=geometries,
)
def test_several_images_share_one_newline_row(image_sizes, geometry):
    ours = packing(image_sizes, geometry)
    assert ours.gather_index.dtype == np.int64
    assert len(ours.gather_index) == sum(ours.visual_tokens)
    if image_sizes:
        theirs = transformers_packing(image_sizes, geometry)
        np.testing.assert_array_equal(ours.gather_index, np.concatenate(theirs))
        assert ours.visual_tokens == tuple(len(image) for image in theirs)
        assert ours.gather_index.max() <= sum(ours.tiles) * geometry.features


@pytest.mark.parametrize("geometry", [LLAVA_NEXT, SMALL, ODD])
@pytest.mark.parametrize("short", [1, 2, 3, 7])
@pytest.mark.parametrize("ratio", [20, 24, 25, 47, 48, 49, 71, 72, 73, 200, 335])
def test_extreme_shapes_keep_the_base_tile_and_what_transformers_keeps(geometry, short, ratio):
    for size in ((short, short * ratio), (short * ratio, short)):
        (theirs,) = transformers_packing([size], geometry)
        np.testing.assert_array_equal(packing([size], geometry).gather_index, theirs)
        assert len(theirs) >= geometry.features


def test_known_counts_of_llava_next():
    assert max_visual_tokens(LLAVA_NEXT) == visual_token_count((672, 672), LLAVA_NEXT) == 2928
    assert visual_token_count((480, 640), LLAVA_NEXT) == 2340
    assert visual_token_count((336, 336), LLAVA_NEXT) == 1176
    assert tile_count((480, 640), LLAVA_NEXT) == 5
    assert tile_count((336, 336), LLAVA_NEXT) == 3
    assert best_resolution((300, 1200), LLAVA_NEXT) == (336, 1008)
    assert max_visual_tokens(SMALL) == 336


def test_rows_are_in_reading_order_over_the_tiles():
    tiny = TileGeometry(2, 1, ((2, 4),))  # a base tile and two tiles side by side, 2 x 2 patches each
    expected = [0, 1, 2, 3, 4, 5, 8, 9, 12, 6, 7, 10, 11, 12]
    assert packing([(2, 4)], tiny).gather_index.tolist() == expected


@pytest.mark.parametrize("class_token", [False, True])
def test_without_pinpoints_an_image_is_one_tile_and_all_features_are_tokens(class_token):
    single = TileGeometry(336, 14, (), class_token)
    count = 577 if class_token else 576
    assert max_visual_tokens(single) == visual_token_count((100, 900), single) == count
    assert max_tiles(single) == tile_count((900, 100), single) == 1
    ours = packing([(336, 336), (10, 2_000)], single)
    assert (ours.tiles, ours.visual_tokens) == ((1, 1), (count, count))
    np.testing.assert_array_equal(ours.gather_index, np.arange(2 * count))


def test_the_most_tiles():
    assert (max_tiles(LLAVA_NEXT), max_tiles(ODD), max_tiles(MANY)) == (5, 10, 17)


@pytest.mark.parametrize("geometry", [SMALL, TileGeometry(56, 7, ())])
@pytest.mark.parametrize("size", [(0, 10), (10, 0), (-3, 4)])
def test_an_image_without_pixels_is_refused(size, geometry):
    with pytest.raises(UserError, match="at least 1 x 1"):
        packing([size], geometry)
