"""Images as the processor wants them: upright, RGB, and surely images."""

import os
import re
from collections.abc import Iterable, Sequence
from io import BytesIO, TextIOBase
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from asap_export.errors import UserError

__all__ = ["ImageSource", "as_images", "named", "read_image"]

# A file's path, a PIL image, a file's content, a file opened in binary mode, or RGB pixels [height, width, 3].
ImageSource = str | os.PathLike[str] | Image.Image | bytes | BinaryIO | npt.NDArray[np.uint8]

_URL = re.compile(r"(?:https?|ftp|file|s3|gs)://|data:")
_KINDS = "a path, a PIL image, bytes, a binary file or an array"


def as_images(images: ImageSource | Sequence[ImageSource]) -> tuple[ImageSource, ...]:
    """One image or several, as a tuple: a lone path is no sequence of one-letter paths, nor an array one of rows.

    Raises UserError where one of them can be no image.
    """
    several = (images,) if _is_image(images) else images
    if not isinstance(several, Iterable):
        raise UserError(f"expected images, each {_KINDS}, found {_kind(images)}; give a list of them")
    found = tuple(several)
    for image in found:
        if not _is_image(image):
            raise UserError(f"expected an image as {_KINDS}, found {_kind(image)}; convert it")
    return found


def named(image: ImageSource) -> str:
    """An image in a few words: its path, or what it is."""
    if isinstance(image, str | os.PathLike):
        return repr(os.fspath(image))
    if isinstance(image, Image.Image):
        return f"<{image.mode} image, {image.width} x {image.height}>"
    if isinstance(image, np.ndarray):
        return f"<array, {' x '.join(map(str, image.shape))}>"
    return f"<{len(image):,} bytes>" if isinstance(image, bytes) else f"<{type(image).__name__}>"


def read_image(source: ImageSource) -> Image.Image:
    """The image, turned as its EXIF orientation says and converted to RGB.

    Transparency is dropped, 16-bit greyscale is scaled to 8 bits. Raises UserError where it is no image,
    damaged, or so large that Pillow takes it for a decompression bomb.
    """
    name = str(source) if isinstance(source, str | os.PathLike) else "what was given"
    try:
        if isinstance(source, np.ndarray):
            _check_pixels(source)
            return Image.fromarray(source)
        if isinstance(source, Image.Image):
            return _upright_rgb(source)
        with Image.open(_opened(source)) as image:
            return _upright_rgb(image)
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(
            f"expected an image of at most {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels, found more in {name}; "
            "scale it down"
        ) from error
    except MemoryError as error:
        raise UserError(
            f"expected a readable image in {name}, found: too little memory for its pixels; give another"
        ) from error
    except UnidentifiedImageError as error:
        raise UserError(f"expected an image in {name}, found another kind of file; give another") from error
    except Exception as error:  # on damaged files Pillow's decoders raise errors of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"expected a readable image in {name}, found: {reason}; give another") from error


def _is_image(value: object) -> bool:
    return isinstance(value, str | os.PathLike | Image.Image | bytes | np.ndarray) or hasattr(value, "read")


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _check_pixels(array: npt.NDArray[Any]) -> None:
    """Raise UserError where an array is no RGB image: dtypes and shapes leave open what their numbers mean."""
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        shape = ", ".join(map(str, array.shape))
        raise UserError(
            f"expected an image's array as [height, width, 3] uint8 in RGB, found [{shape}] {array.dtype}; "
            "convert it, or give a PIL image"
        )


def _opened(source: str | os.PathLike[str] | bytes | BinaryIO) -> Path | BinaryIO:
    if isinstance(source, str | os.PathLike):
        if _URL.match(os.fspath(source)):
            raise UserError(f"expected an image file, found the URL {os.fspath(source)}; download it first")
        return _file(Path(source))
    if isinstance(source, bytes):
        return BytesIO(source)
    if isinstance(source, TextIOBase):
        raise UserError("expected an image's file in binary mode, found one in text mode; open it with 'rb'")
    return source


def _file(path: Path) -> Path:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise UserError(f"expected an image file at {path}, found {found}; check the path")
    return path


def _upright_rgb(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):  # Pillow would clip at 255
        upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
    if "transparency" in upright.info:  # a palette's transparent colour has no RGB form of its own
        upright = upright.convert("RGBA")
    return upright.convert("RGB")
