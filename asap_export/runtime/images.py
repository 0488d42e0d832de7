"""Images as the processor wants them: upright, RGB, and surely images."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from asap_export.errors import UserError

__all__ = ["ImageSource", "as_images", "read_image"]

ImageSource = str | os.PathLike[str] | Image.Image


def as_images(images: ImageSource | Sequence[ImageSource]) -> tuple[ImageSource, ...]:
    """One image or several, as a tuple: a lone path is no sequence of one-letter paths."""
    return (images,) if isinstance(images, str | os.PathLike | Image.Image) else tuple(images)


def read_image(source: ImageSource) -> Image.Image:
    """The image in a file, or a PIL image, turned as its EXIF orientation says and converted to RGB.

    Transparency is dropped, 16-bit greyscale is scaled to 8 bits. Raises UserError where it is no image,
    damaged, or so large that Pillow takes it for a decompression bomb.
    """
    name = "the image" if isinstance(source, Image.Image) else str(source)
    try:
        if isinstance(source, Image.Image):
            return _upright_rgb(source)
        with Image.open(_file(Path(source))) as image:
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
