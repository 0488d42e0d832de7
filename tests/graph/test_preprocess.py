"""preprocess.onnx against the image processors of transformers: pixel for pixel, tile for tile."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessor, LlavaImageProcessor, LlavaNextImageProcessor

from asap_export.checkpoint.images import image_settings
from asap_export.errors import UserError
from asap_export.graph.preprocess import pixel_values, preprocess_graph, preprocess_model, share_apart
from asap_export.model.anyres import TileGeometry, tile_count

VICUNA = TileGeometry(336, 14, ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)))
SMALL = TileGeometry(56, 7, ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168), (224, 224)))
LLAVA_1_5 = TileGeometry(56, 7, ())
BICUBIC = Image.Resampling.BICUBIC
EDGE, SQUARE = {"shortest_edge": 56}, {"height": 56, "width": 56}


def llava_next(geometry: TileGeometry, **changes) -> LlavaNextImageProcessor:
    tile = geometry.tile_size
    own = {
        "size": {"shortest_edge": tile},
        "crop_size": {"height": tile, "width": tile},
        "image_grid_pinpoints": [list(pinpoint) for pinpoint in geometry.grid_pinpoints],
    }
    return LlavaNextImageProcessor(**own | changes)


PROCESSORS = {
    "vicuna": (llava_next(VICUNA), VICUNA),
    "small": (llava_next(SMALL), SMALL),
    "crop": (CLIPImageProcessor(size=EDGE, crop_size=SQUARE), LLAVA_1_5),
    "pad": (LlavaImageProcessor(do_pad=True, size=EDGE, crop_size=SQUARE), LLAVA_1_5),
    "stretch": (CLIPImageProcessor(size=SQUARE, do_center_crop=False), LLAVA_1_5),
    "border": (CLIPImageProcessor(size={"shortest_edge": 41}, crop_size=SQUARE), LLAVA_1_5),
    "middle": (CLIPImageProcessor(do_resize=False, crop_size=SQUARE), LLAVA_1_5),
    "as it is": (LlavaImageProcessor(size=SQUARE, do_normalize=False, do_rescale=False), LLAVA_1_5),
}
NAMES_1_5 = [name for name, (_, geometry) in PROCESSORS.items() if geometry is LLAVA_1_5]


class Compared:
    """A processor and its graph."""

    def __init__(self, name: str) -> None:
        images, self.geometry = PROCESSORS[name]
        self.processor = SimpleNamespace(image_processor=images)
        self.settings = image_settings(self.processor, self.geometry, "here")
        self.model = preprocess_graph(self.processor, self.geometry, "here")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.model.SerializeToString(), options)

    def check(self, pixels: np.ndarray) -> None:
        image = Image.fromarray(pixels)
        expected = pixel_values(self.processor, image)
        (found,) = self.session.run(None, {"image": np.asarray(image)})
        assert found.shape == expected.shape and found.dtype == np.float32
        assert len(found) == tile_count(pixels.shape[:2], self.geometry)
        assert share_apart(found, expected, self.settings) <= 1e-3


@pytest.fixture(scope="module")
def compared():
    return cache(Compared)


sides = st.one_of(st.integers(1, 8), st.integers(1, 120), st.integers(1, 700))
long = st.integers(700, 2500)
sizes = st.one_of(
    st.tuples(sides, sides),
    st.tuples(st.integers(1, 3), long),
    st.tuples(long, st.integers(1, 3)),
    st.sampled_from([(480, 640), (640, 480), (336, 336), (337, 335), (672, 672), (112, 112), (57, 56)]),
)


def picture(size: tuple[int, int], kind: str) -> np.ndarray:
    """Noise of single black and white pixels overshoots everywhere; a smooth picture is what is usual."""
    noise = np.random.RandomState(size[0] * 10_007 + size[1])
    if kind == "noise":
        return noise.randint(0, 256, (*size, 3), np.uint8)
    if kind == "black and white":
        return np.repeat(noise.randint(0, 2, (*size, 1), np.uint8) * 255, 3, axis=2)
    coarse = noise.randint(0, 256, (-(-size[0] // 5), -(-size[1] // 5), 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BILINEAR))


kinds = st.sampled_from(["noise", "black and white", "smooth"])


@settings(max_examples=80, deadline=None)
@given(size=sizes, kind=kinds)
def test_tiles_of_llava_next_are_its_processors(compared, size, kind):
    compared("small").check(picture(size, kind))


@settings(max_examples=15, deadline=None)
@given(size=sizes, kind=kinds)
def test_tiles_of_a_public_checkpoints_size_are_its_processors(compared, size, kind):
    compared("vicuna").check(picture(size, kind))


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES_1_5), size=sizes, kind=kinds)
def test_the_tile_of_llava_1_5_is_its_processors(compared, name, size, kind):
    assume(max(size) <= 500 * min(size))  # its shortest edge becomes a tile's, however long the other is
    assume(name != "pad" or max(size) <= 1000)
    compared(name).check(picture(size, kind))


@pytest.mark.parametrize("name", ["small", "crop", "pad"])
def test_every_tile_shows_the_part_of_the_image_that_is_its(compared, name):
    """Red grows to the right and green downwards, so a tile in another place would be far off."""
    one = compared(name)
    for height, width in [(97, 303), (303, 97), (150, 151), (400, 399)]:
        red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
        one.check(np.stack([red, green, 255 - red], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("rows_first", [False, True])
@pytest.mark.parametrize(("height", "width"), [(400, 90), (90, 400), (200, 140), (30, 30)])
def test_the_passes_of_resizing_have_the_order_asked_for(height, width, rows_first):
    """One pass at a time, every Pillow does the same; in the base tile 344 rows go, or 144 and 84 columns."""
    images = SimpleNamespace(image_processor=llava_next(SMALL))
    settings = image_settings(images, SMALL, "here")
    model = ir.to_proto(preprocess_model(settings, SMALL, rows_first))
    image = Image.fromarray(picture((height, width), "black and white"))
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"image": np.asarray(image)})
    vertically = rows_first and height == 400
    between = (width, 56) if vertically else (56, height)
    base = np.asarray(image.resize(between, BICUBIC).resize((56, 56), BICUBIC), np.float32)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (settings.mean, settings.std))
    expected = (base.transpose(2, 0, 1) / 255 - mean) / std
    assert share_apart(found[:1], expected[None], settings) <= 1e-3


def test_the_graph_is_a_standard_one_without_weights(compared):
    model = compared("small").model
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 23)]
    assert not model.functions and not model.graph.initializer
    assert all(value.doc_string for value in (*model.graph.input, *model.graph.output))


@pytest.mark.parametrize(
    ("processor", "geometry", "said"),
    [
        (llava_next(SMALL, resample=2), SMALL, r"expected resample 3 \(bicubic\) in here, found 2"),
        (CLIPImageProcessor(resample=0, size=SQUARE), LLAVA_1_5, r"expected resample 3 .*, found 0"),
        (llava_next(VICUNA), SMALL, r"expected the image_grid_pinpoints of config.json in here, found"),
        (
            llava_next(SMALL, size={"shortest_edge": 64}),
            SMALL,
            r"of the 56-pixel tile in here, found 64 and \(56, 56\)",
        ),
        (llava_next(SMALL), LLAVA_1_5, r"or CLIPImageProcessor in here, found LlavaNextImageProcessor"),
        (CLIPImageProcessor(), SMALL, r"expected image_processor_type LlavaNextImageProcessor"),
        (
            CLIPImageProcessor(size={"shortest_edge": 56, "longest_edge": 90}),
            LLAVA_1_5,
            r"expected size of height and width, or of shortest_edge, in here, found",
        ),
        (
            CLIPImageProcessor(size=EDGE, image_mean=[0.5]),
            LLAVA_1_5,
            r"expected image_mean of three channels",
        ),
    ],
)
def test_a_processor_that_the_graph_cannot_express_is_refused(processor, geometry, said):
    with pytest.raises(UserError, match=said):
        preprocess_graph(SimpleNamespace(image_processor=processor), geometry, "here")


def test_a_processor_that_does_something_else_is_refused():
    images = llava_next(SMALL)
    resize = images.resize
    images.resize = lambda image, **how: resize(image[:, ::-1], **how)  # upside down
    with pytest.raises(
        UserError, match=r"found one of whose pixels \d\d\.\d% differ by more than a grey level"
    ):
        preprocess_graph(SimpleNamespace(image_processor=images), SMALL, "here")
