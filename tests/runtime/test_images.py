"""Pictures in every form become upright RGB; everything else is refused in one line."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asap_export.errors import UserError
from asap_export.runtime.images import ImageSource, as_images, named, read_image

MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert read_image(Image.new(mode, (7, 5))).mode == "RGB"


def test_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    picture = Image.new("RGB", (40, 20), "red")
    picture.save(tmp_path / "phone.jpg", exif=exif)
    assert read_image(tmp_path / "phone.jpg").size == (20, 40)


def test_transparency_is_dropped_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    Image.new("RGBA", (3, 3), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png").getpixel((1, 1)) == (10, 20, 30)
    Image.new("P", (3, 3), 1).save(tmp_path / "palette.png", transparency=b"\x00\x10")
    read_image(str(tmp_path / "palette.png"))
    assert not recwarn.list


def test_deep_greyscale_is_scaled(tmp_path: Path) -> None:
    grey = np.array([[0, 256, 0x8000, 0xFFFF]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    assert np.asarray(read_image(tmp_path / "deep.png"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    with pytest.raises(UserError, match=r"expected an image in .*notes.png, found another kind of file"):
        read_image(text)
    with pytest.raises(UserError, match="found nothing; check the path"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(UserError, match="found a folder; check the path"):
        read_image(tmp_path)


@pytest.mark.parametrize("form", ["png", "jpeg", "gif", "webp", "bmp", "tiff"])
def test_a_truncated_image_is_refused(tmp_path: Path, form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = tmp_path / f"whole.{form}"
    Image.fromarray(noise).save(whole)
    cut = tmp_path / f"cut.{form}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(UserError, match=r"^expected .*cut\.") as refusal:
        read_image(cut)
    assert "\n" not in str(refusal.value)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (400, 400)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match="expected an image of at most 2000 pixels"):
        read_image(tmp_path / "bomb.png")


def test_one_image_may_stand_for_a_list_of_one() -> None:
    picture = Image.new("RGB", (2, 2))
    assert as_images("cat.png") == ("cat.png",)
    assert as_images(Path("cat.png")) == (Path("cat.png"),)
    assert as_images(picture) == (picture,)
    assert as_images(["a.png", "b.png"]) == ("a.png", "b.png")
    assert as_images(()) == ()


def test_an_image_may_be_bytes_a_file_or_an_array(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    file = tmp_path / "cat.png"
    Image.fromarray(pixels).save(file)
    with file.open("rb") as opened:
        content = file.read_bytes()
        sources: list[ImageSource] = [file, str(file), content, BytesIO(content), opened, pixels]
        for source in sources:
            assert as_images(source) == (source,)
            np.testing.assert_array_equal(np.asarray(read_image(source)), pixels)
            np.testing.assert_array_equal(np.asarray(read_image(source)), pixels)  # a file is read anew


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((4, 6, 3), np.float32), r"\[4, 6, 3\] float32"),
        (np.zeros((4, 6, 4), np.uint8), r"\[4, 6, 4\] uint8"),
        (np.zeros((3, 4, 6), np.uint8), r"\[3, 4, 6\] uint8"),
        (np.zeros((4, 6), np.uint8), r"\[4, 6\] uint8"),
        (np.zeros((2, 4, 6, 3), np.uint8), r"\[2, 4, 6, 3\] uint8"),
        (np.zeros((0, 6, 3), np.uint8), r"\[0, 6, 3\] uint8"),
    ],
)
def test_an_array_that_could_mean_several_things_is_refused(array: np.ndarray, found: str) -> None:
    with pytest.raises(UserError, match=rf"as \[height, width, 3\] uint8 in RGB, found {found}; convert it"):
        read_image(array)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (None, "found None"),
        (7, "found a value of type int"),
        ([None], "found None"),
        (["cat.png", 7], "found a value of type int"),
    ],
)
def test_what_can_be_no_image_is_refused(images: Any, found: str) -> None:
    with pytest.raises(UserError, match=found):
        as_images(images)


def test_content_that_is_no_image_is_refused(tmp_path: Path) -> None:
    for source in (b"no picture", BytesIO(b"no picture")):
        with pytest.raises(
            UserError, match="expected an image in what was given, found another kind of file"
        ):
            read_image(source)
    (tmp_path / "cat.png").write_text("text")
    with (tmp_path / "cat.png").open() as text, pytest.raises(UserError, match="open it with 'rb'"):
        read_image(text)  # type: ignore[arg-type]


def test_images_are_named_in_a_few_words(tmp_path: Path) -> None:
    million = np.zeros((1000, 1000, 3), np.uint8)
    sources: list[ImageSource] = ["cat.png", Image.new("RGB", (4, 3)), million, b"1234", BytesIO()]
    assert [named(source) for source in sources] == [
        "'cat.png'",
        "<RGB image, 4 x 3>",
        "<array, 1000 x 1000 x 3>",
        "<4 bytes>",
        "<BytesIO>",
    ]
