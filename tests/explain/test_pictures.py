import io

import numpy as np
import pytest
from PIL import Image

from asap_export.explain.pictures import Scale, heat_map, heat_scale, pictures_of
from asap_export.explain.tokens import FATES, MEASURES, Tokens
from asap_export.explain.views import image_tokens
from asap_export.model.anyres import TileGeometry

SMALL = TileGeometry(56, 7, ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168)))


def with_a_square(size: tuple[int, int], corner: tuple[int, int, int, int]) -> Image.Image:
    """A black image of (height, width) pixels with one white rectangle (left, top, right, bottom)."""
    image = Image.new("RGB", (size[1], size[0]))
    image.paste((255, 255, 255), corner)
    return image


@pytest.mark.parametrize("size", [(200, 640), (420, 150), (333, 411), (56, 56)])
@pytest.mark.parametrize("corner", ["upper left", "lower right"])
def test_a_patch_is_drawn_over_the_pixels_it_was_made_of(size, corner):
    """The patches over one corner are hot, and nothing else is: what is hot is the white corner of the image."""
    height, width = size
    square = {"upper left": (0, 0), "lower right": (width - width // 4, height - height // 4)}[corner]
    image = with_a_square(size, (*square, square[0] + width // 4, square[1] + height // 4))
    for view in image_tokens(size, SMALL).views:
        hot = np.zeros(view.token.shape)
        for row, column in np.ndindex(hot.shape):
            left, top, wide, tall = view.patch(row, column)
            inside = (
                0 <= left + wide / 2 - square[0] < width // 4,
                0 <= top + tall / 2 - square[1] < height // 4,
            )
            hot[row, column] = all(inside)
        drawn = np.asarray(heat_map(image, view, hot, Scale(0, 1)), float)
        white = np.asarray(image.resize(drawn.shape[1::-1], Image.Resampling.NEAREST).convert("L")) > 0
        yellow = drawn[:, :, 0] > drawn[:, :, 2] + 60  # viridis ends in yellow, and begins in violet
        assert (yellow == white).mean() > 0.93  # but for patches that the square's edge goes through


def test_the_scale_holds_most_values_and_does_not_blow_up_noise():
    low, high = heat_scale(np.linspace(-2, 2, 1001))
    assert low == pytest.approx(-1.92) and high == pytest.approx(1.92)
    low, high = heat_scale(np.array([0.0, 1e-9]))
    assert high - low == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("size", "views"),
    [((480, 640), ("base", "tiles")), ((60, 900), ("base", "tiles")), ((30, 900), ("base",))],
)
def test_every_view_has_its_heat_maps_and_the_fates(size, views):
    """An image of 30 x 900 pixels leaves no patch of its tiles after unpadding."""
    places = image_tokens(size, SMALL)
    generator = np.random.default_rng(0)
    count = places.count + 10  # behind another image's tokens
    tokens = Tokens(
        {measure: generator.random(count, np.float32) for measure in MEASURES},
        generator.integers(0, len(FATES), count).astype(np.int8),
        generator.integers(0, count, count),
    )
    pictures = pictures_of(Image.new("RGB", size[::-1], "white"), places, tokens, 10)
    assert [picture.name for picture in pictures] == [
        f"{view}-{what}" for view in views for what in ("causal", "sg-bimask", "last-row", "tokens")
    ]
    for picture in pictures:
        with Image.open(io.BytesIO(picture.png)) as drawn:
            assert drawn.format == "PNG" and drawn.width >= 440
