"""Pictures in every form become upright RGB; everything else is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asap_export.errors import UserError
from asap_export.runtime.images import as_images, read_image

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
