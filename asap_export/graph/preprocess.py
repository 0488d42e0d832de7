"""``preprocess.onnx``: what the checkpoint's image processor does to one image, in standard operators.

So a program without Python gives the vision encoder what transformers would. Every size is computed in the graph
from the image's own, in the types in which transformers computes it: exact integers, and float64 where it divides.

Pixels stay uint8 until all resizing is done. Pillow resizes in a horizontal and a vertical pass and cuts to grey
levels after each, and so does ONNX Runtime's ``Resize`` on uint8; on floats it does not. What the first pass cuts
off the second cannot see, so the order of the passes matters too. Up to version 12 Pillow's first pass is the
horizontal one, as ``Resize``'s is; since 13 it is the vertical one where that saves work. torchvision, on which
processors run where it is installed, has the old order. Which one the processor has is found out by trying.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
from onnx_ir.tape import Tape
from PIL import Image
from transformers import ProcessorMixin

from asap_export.checkpoint.images import ImageSettings, image_settings
from asap_export.errors import UserError
from asap_export.graph.describe import describe
from asap_export.graph.operators import OPSET_VERSION
from asap_export.graph.write import check_graph
from asap_export.model.anyres import Size, TileGeometry

__all__ = [
    "LARGEST_SHARE_APART",
    "PREPROCESS",
    "pixel_values",
    "preprocess_graph",
    "preprocess_model",
    "share_apart",
]

PREPROCESS = "preprocess"
LARGEST_SHARE_APART = 1e-3  # of pixel values, that may differ from the processor's by more than a grey level

# Pillow's bicubic filter, widened by the scale when shrinking; what reaches beyond the image has no weight.
_BICUBIC = {
    "mode": "cubic",
    "cubic_coeff_a": -0.5,
    "antialias": 1,
    "exclude_outside": 1,
    "coordinate_transformation_mode": "half_pixel",
}


def preprocess_graph(processor: ProcessorMixin, geometry: TileGeometry, place: str) -> onnx.ModelProto:
    """The graph that equals a loaded processor, which ``check_processor`` has found to make the geometry's tiles.

    Raises UserError where no graph does; ``place`` is where the processor's files are.
    """
    settings = image_settings(processor, geometry, place)
    image = _hard_image(geometry.tile_size)
    expected = pixel_values(processor, image)
    apart = 1.0
    for rows_first in (False, True):
        model = ir.to_proto(preprocess_model(settings, geometry, rows_first))
        apart = share_apart(_run(model, image), expected, settings)
        if apart <= LARGEST_SHARE_APART:
            check_graph(model)
            return model
    raise UserError(
        f"expected an image processor in {place} that preprocess.onnx can equal, found one of whose pixels "
        f"{apart:.1%} differ by more than a grey level; please report this checkpoint"
    )


def pixel_values(processor: ProcessorMixin, image: Image.Image) -> npt.NDArray[np.float32]:
    """[tiles, 3, h, w], as transformers makes them of one image."""
    found = processor.image_processor(images=[image], return_tensors="np")["pixel_values"][0]
    values = np.asarray(found, np.float32)
    return values.reshape(-1, *values.shape[-3:])  # LLaVA-1.5's only tile comes without its dimension


def share_apart(
    found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], settings: ImageSettings
) -> float:
    """The part of pixel values [tiles, 3, h, w] that differ by more than a grey level; 1 for other shapes."""
    if found.shape != expected.shape:
        return 1.0
    levels = np.abs(found - expected) * (np.array(settings.std)[:, None, None] / settings.factor)
    return float(np.mean(levels > 1.01))  # pixel values are rounded


def _hard_image(tile: int) -> Image.Image:
    """Black and white noise, whose every edge overshoots, shrunk so much more in height than in width that the
    order of the passes shows."""
    noise = np.random.RandomState(0).randint(0, 2, (6 * tile, 2 * tile), np.uint8) * 255
    return Image.fromarray(noise).convert("RGB")


def _run(model: onnx.ModelProto, image: Image.Image) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values: npt.NDArray[np.float32] = session.run(None, {"image": np.asarray(image)})[0]
    return values


def preprocess_model(settings: ImageSettings, geometry: TileGeometry, rows_first: bool) -> ir.Model:
    """image [height, width, 3] uint8 -> pixel_values [tiles, 3, tile_size, tile_size] float32.

    ``rows_first``: images are resized vertically first where many more rows than columns go, as in Pillow 13.
    """
    image = ir.Value(
        name="image", type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape(["height", "width", 3])
    )
    steps = _Steps(rows_first)
    pixels = steps.op("Unsqueeze", steps.op("Transpose", image, perm=[2, 0, 1]), steps.integers(0))
    height, width = (steps.op("Shape", image, start=axis, end=axis + 1) for axis in (0, 1))
    if geometry.grid_pinpoints:
        tiles = _tiles(steps, pixels, height, width, geometry)
    else:
        tiles = _one_tile(steps, pixels, height, width, settings)
    values = steps.normalized(tiles, settings)
    tile = geometry.tile_size
    values.name, values.shape = "pixel_values", ir.Shape(["tiles", 3, tile, tile])
    values.type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [image],
        [values],
        nodes=steps.tape.nodes,
        name=PREPROCESS,
        doc_string="One image to tiles of pixel values, as the checkpoint's image processor makes them.",
        opset_imports={"": OPSET_VERSION},
    )
    model = ir.Model(graph, ir_version=11)
    describe(model)
    return model


class _Steps:
    """Writes the graph node by node. Pixels are uint8 [1, 3, height, width], lengths int64 [1]."""

    def __init__(self, rows_first: bool) -> None:
        self.tape, self.rows_first = Tape(), rows_first

    def op(self, kind: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        return self.tape.op(kind, inputs, attributes)

    def constant(self, values: npt.ArrayLike, dtype: type[np.generic]) -> ir.Value:
        return self.op("Constant", value=ir.tensor(np.array(values, dtype)))

    def integers(self, *values: int) -> ir.Value:
        return self.constant(values, np.int64)

    def as_float(self, values: ir.Value) -> ir.Value:
        return self.op("Cast", values, to=ir.DataType.DOUBLE)

    def as_integer(self, values: ir.Value) -> ir.Value:
        """Cut, not rounded, as Python's ``int`` does."""
        return self.op("Cast", values, to=ir.DataType.INT64)

    def half(self, length: ir.Value) -> ir.Value:
        """Rounded down; lengths are not negative."""
        return self.op("Div", length, self.integers(2))

    def resized(
        self, pixels: ir.Value, size: tuple[ir.Value, ir.Value], target: tuple[ir.Value, ir.Value]
    ) -> ir.Value:
        """Pixels of ``size`` (height, width), resized to ``target``."""
        if self.rows_first:
            rows, columns = (
                self.op("Sub", before, after) for before, after in zip(size, target, strict=True)
            )
            twice = self.op("Mul", columns, self.integers(2))
            first = self.op(
                "And", self.op("Greater", rows, self.integers(0)), self.op("Greater", rows, twice)
            )
            high = self.op("Where", first, target[0], size[0])
            wide = self.op("Where", first, size[1], target[1])
            pixels = self._resized_to(pixels, high, wide)
        return self._resized_to(pixels, *target)

    def _resized_to(self, pixels: ir.Value, height: ir.Value, width: ir.Value) -> ir.Value:
        sizes = self.op("Concat", self.integers(1, 3), height, width, axis=0)
        return self.op("Resize", pixels, None, None, sizes, **_BICUBIC)

    def padded(
        self, pixels: ir.Value, before: Sequence[ir.Value], after: Sequence[ir.Value], level: int = 0
    ) -> ir.Value:
        """``before`` at the top and on the left, ``after`` at the bottom and on the right."""
        none = self.integers(0, 0)
        pads = self.op("Concat", none, *before, none, *after, axis=0)
        return self.op("Pad", pixels, pads, self.constant(level, np.uint8))

    def normalized(self, tiles: ir.Value, settings: ImageSettings) -> ir.Value:
        """Pixel values; transformers rescales in float64 and goes on in float32."""
        scaled = self.op("Mul", self.as_float(tiles), self.constant(settings.factor, np.float64))
        mean, std = (
            self.constant(np.reshape(values, (1, 3, 1, 1)), np.float32)
            for values in (settings.mean, settings.std)
        )
        centred = self.op("Sub", self.op("Cast", scaled, to=ir.DataType.FLOAT), mean)
        return self.op("Div", centred, std)


def _tiles(
    steps: _Steps, pixels: ir.Value, height: ir.Value, width: ir.Value, geometry: TileGeometry
) -> ir.Value:
    """LLaVA-NeXT: the base tile, and the tiles of the best resolution in raster order."""
    tile = steps.integers(geometry.tile_size)
    tall, wide = _best_resolution(steps, height, width, geometry.grid_pinpoints)
    fitted = _fitted_size(steps, (height, width), (tall, wide))
    room = [steps.op("Sub", whole, part) for whole, part in zip((tall, wide), fitted, strict=True)]
    before = [steps.half(length) for length in room]
    after = [steps.op("Sub", length, first) for length, first in zip(room, before, strict=True)]
    whole = steps.padded(steps.resized(pixels, (height, width), fitted), before, after)
    rows, columns = (steps.op("Div", length, tile) for length in (tall, wide))
    grid = steps.op("Concat", steps.integers(3), rows, tile, columns, tile, axis=0)
    cut = steps.op("Transpose", steps.op("Reshape", whole, grid), perm=[1, 3, 0, 2, 4])
    size = geometry.tile_size
    tiles = steps.op("Reshape", cut, steps.integers(-1, 3, size, size))
    base = steps.resized(pixels, (height, width), (tile, tile))
    return steps.op("Concat", base, tiles, axis=0)


def _best_resolution(
    steps: _Steps, height: ir.Value, width: ir.Value, pinpoints: Sequence[Size]
) -> tuple[ir.Value, ir.Value]:
    """``anyres.best_resolution``: the most pixels kept, then the fewest wasted, then the first."""
    tall = steps.constant([pinpoint[0] for pinpoint in pinpoints], np.int64)
    wide = steps.constant([pinpoint[1] for pinpoint in pinpoints], np.int64)
    high, broad = steps.as_float(height), steps.as_float(width)
    scale = steps.op(
        "Min",
        steps.op("Div", steps.as_float(wide), broad),
        steps.op("Div", steps.as_float(tall), high),
    )
    scaled = steps.op(
        "Mul",
        steps.as_integer(steps.op("Mul", broad, scale)),
        steps.as_integer(steps.op("Mul", high, scale)),
    )
    kept = steps.op("Min", scaled, steps.op("Mul", height, width))
    # Among those that keep the most, the smallest wastes the least.
    areas = [high * broad for high, broad in pinpoints]
    most = steps.op("Equal", kept, steps.op("ReduceMax", kept, keepdims=1))
    area = steps.op("Where", most, steps.constant(areas, np.int64), steps.integers(max(areas) + 1))
    best = steps.op("ArgMin", area, axis=0, keepdims=1, select_last_index=0)
    return steps.op("Gather", tall, best), steps.op("Gather", wide, best)


def _fitted_size(
    steps: _Steps, size: tuple[ir.Value, ir.Value], target: tuple[ir.Value, ir.Value]
) -> tuple[ir.Value, ir.Value]:
    """The size of an image that is scaled into ``target`` with its aspect ratio; lengths are rounded up."""
    high, broad = (steps.as_float(length) for length in size)
    by_height = steps.op("Div", steps.as_float(target[0]), high)
    by_width = steps.op("Div", steps.as_float(target[1]), broad)
    fills_width = steps.op("Less", by_width, by_height)

    def scaled(length: ir.Value, scale: ir.Value, most: ir.Value) -> ir.Value:
        rounded = steps.as_integer(steps.op("Ceil", steps.op("Mul", length, scale)))
        return steps.op("Min", rounded, most)

    return (
        steps.op("Where", fills_width, scaled(high, by_width, target[0]), target[0]),
        steps.op("Where", fills_width, target[1], scaled(broad, by_height, target[1])),
    )


def _one_tile(
    steps: _Steps, pixels: ir.Value, height: ir.Value, width: ir.Value, settings: ImageSettings
) -> ir.Value:
    """LLaVA-1.5: padded to a square, resized, its middle cut out, each where the settings say so."""
    if settings.square is not None:
        side = steps.op("Max", height, width)
        pixels = _squared(steps, pixels, (height, width), side, settings.square)
        height = width = side
    size = height, width
    if isinstance(settings.size, int):
        edge, shortest = steps.integers(settings.size), steps.op("Min", height, width)
        high, wide = (steps.op("Div", steps.op("Mul", edge, length), shortest) for length in size)
        pixels, size = steps.resized(pixels, size, (high, wide)), (high, wide)
    elif settings.size is not None:
        high, wide = (steps.integers(length) for length in settings.size)
        pixels, size = steps.resized(pixels, size, (high, wide)), (high, wide)
    return pixels if settings.crop is None else _middle(steps, pixels, size, settings.crop)


def _squared(
    steps: _Steps,
    pixels: ir.Value,
    size: tuple[ir.Value, ir.Value],
    side: ir.Value,
    color: Sequence[int],
) -> ir.Value:
    """Each channel is padded with its own level."""
    room = [steps.op("Sub", side, length) for length in size]
    before = [steps.half(length) for length in room]
    after = [steps.op("Sub", length, first) for length, first in zip(room, before, strict=True)]
    channels = []
    for channel, level in enumerate(color):
        ends = steps.integers(channel), steps.integers(channel + 1)
        one = steps.op("Slice", pixels, *ends, steps.integers(1))
        channels.append(steps.padded(one, before, after, level))
    return steps.op("Concat", *channels, axis=1)


def _middle(steps: _Steps, pixels: ir.Value, size: tuple[ir.Value, ir.Value], crop: Size) -> ir.Value:
    """Cut out; where the image is smaller it is padded with black, of an odd number more before than after."""
    none, wanted = steps.integers(0), [steps.integers(length) for length in crop]
    missing, over = [], []
    for length, most in zip(size, wanted, strict=True):
        missing.append(steps.op("Max", steps.op("Sub", most, length), none))
        over.append(steps.op("Max", steps.op("Sub", length, most), none))
    after = [steps.half(length) for length in missing]
    before = [steps.op("Sub", length, last) for length, last in zip(missing, after, strict=True)]
    filled = steps.padded(pixels, before, after)
    starts = steps.op("Concat", *(steps.half(length) for length in over), axis=0)
    ends = steps.op("Add", starts, steps.integers(*crop))
    return steps.op("Slice", filled, starts, ends, steps.integers(2, 3))
