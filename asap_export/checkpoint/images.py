"""What a checkpoint's image processor does to an image, in plain numbers."""

from dataclasses import dataclass
from typing import Any

from transformers import ProcessorMixin

from asap_export.errors import UserError
from asap_export.model.anyres import Size, TileGeometry

__all__ = ["ImageSettings", "image_settings"]

_BICUBIC = 3  # Pillow's number
_LLAVA_NEXT = ("LlavaNextImageProcessor",)
_LLAVA_1_5 = ("LlavaImageProcessor", "CLIPImageProcessor")


@dataclass(frozen=True)
class ImageSettings:
    """Settings of an image processor. Grey levels (0 to 255) times ``factor``, less ``mean``, by ``std`` are the
    model's pixel values; one of ``mean`` and ``std`` for red, green and blue each.

    For LLaVA-1.5, whose image is one tile, in this order: ``square`` is the colour with which it is padded to a
    square, ``size`` (height, width) or the length of the shortest edge to which it is resized, ``crop`` the size
    of its middle that is cut out; None leaves a step out. LLaVA-NeXT's steps follow from the tile geometry.
    """

    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    square: tuple[int, ...] | None = None
    size: Size | int | None = None
    crop: Size | None = None


def image_settings(processor: ProcessorMixin, geometry: TileGeometry, place: str) -> ImageSettings:
    """The settings of a loaded processor, which ``check_processor`` has found to make the geometry's tiles.

    Raises UserError where it does what ``preprocess.onnx`` cannot express; ``place`` is where its files are.
    """
    images = processor.image_processor
    kind = type(images).__name__.removesuffix("Pil").removesuffix("Fast")
    known = _LLAVA_NEXT if geometry.grid_pinpoints else _LLAVA_1_5
    if kind not in known:
        raise UserError(f"expected image_processor_type {' or '.join(known)} in {place}, found {kind}")
    if images.resample is None or int(images.resample) != _BICUBIC:
        raise UserError(
            f"expected resample {_BICUBIC} (bicubic) in {place}, found {images.resample}; "
            "preprocess.onnx has no other: give a checkpoint that resizes so"
        )
    factor = float(images.rescale_factor) if images.do_rescale else 1.0
    mean = _channels(images.image_mean, "image_mean", place) if images.do_normalize else (0.0,) * 3
    std = _channels(images.image_std, "image_std", place) if images.do_normalize else (1.0,) * 3
    size, crop = _size(images.size, place), images.crop_size if images.do_center_crop else None
    cut = (int(crop["height"]), int(crop["width"])) if crop else None
    if geometry.grid_pinpoints:
        _check_tiles(images, size, cut, geometry, place)
        return ImageSettings(factor, mean, std)
    square = None
    if (
        images.do_pad and kind == "LlavaImageProcessor"
    ):  # the background is made of image_mean, applied or not
        square = tuple(int(part * 255) for part in images.image_mean) if images.image_mean else (0, 0, 0)
    return ImageSettings(factor, mean, std, square, size if images.do_resize else None, cut)


def _size(size: Any, place: str) -> Size | int:
    """(height, width), or the length of the shortest edge."""
    given = {name: value for name, value in dict(size).items() if value is not None}
    if set(given) == {"height", "width"}:
        return int(given["height"]), int(given["width"])
    if set(given) == {"shortest_edge"}:
        return int(given["shortest_edge"])
    raise UserError(f"expected size of height and width, or of shortest_edge, in {place}, found {given}")


def _check_tiles(
    images: Any, size: Size | int, crop: Size | None, geometry: TileGeometry, place: str
) -> None:
    """LLaVA-NeXT as everyone has it: the model's pinpoints, and tiles that are not resized once more."""
    tile, pinpoints = geometry.tile_size, [tuple(pinpoint) for pinpoint in images.image_grid_pinpoints]
    if pinpoints != list(geometry.grid_pinpoints):
        raise UserError(
            f"expected the image_grid_pinpoints of config.json in {place}, found {pinpoints}; make them equal"
        )
    whole = (tile, tile)
    if size not in (tile, whole) or crop not in (None, whole):
        raise UserError(
            f"expected size and crop_size of the {tile}-pixel tile in {place}, found {size} and {crop}; "
            "preprocess.onnx resizes no tile twice: make them equal"
        )


def _channels(values: Any, name: str, place: str) -> tuple[float, ...]:
    """A number for each channel; one alone is for all."""
    channels = (float(values),) * 3 if isinstance(values, int | float) else tuple(map(float, values or ()))
    if len(channels) != 3:
        raise UserError(f"expected {name} of three channels in {place}, found {values}")
    return channels
