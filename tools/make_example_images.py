"""Draw the example images of examples/images: simple pictures of different sizes and aspect ratios.

python tools/make_example_images.py [FOLDER]
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from asap_export.scenes import scene


def canvas(width: int, height: int, colour: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width, height), colour)
    return image, ImageDraw.Draw(image)


def mat() -> Image.Image:
    """640 x 480: a cat on a mat, a ball beside it, a window with the sun behind."""
    image, draw = canvas(640, 480, "#f2e3c6")
    draw.rectangle((0, 330, 640, 480), fill="#b98a5a")
    for x in range(0, 640, 80):
        draw.line((x, 330, x - 60, 480), fill="#9c7045", width=3)
    draw.rectangle((420, 40, 590, 210), fill="#9fd3f5", outline="#ffffff", width=10)
    draw.ellipse((520, 60, 570, 110), fill="#ffd23f")
    draw.line((505, 40, 505, 210), fill="#ffffff", width=8)
    draw.line((420, 125, 590, 125), fill="#ffffff", width=8)
    draw.polygon([(120, 360), (470, 360), (540, 450), (60, 450)], fill="#c0392b", outline="#7b241c", width=4)
    for x in range(150, 460, 45):
        draw.line((x, 362, x - 28, 448), fill="#f5b7b1", width=5)
    draw.ellipse((200, 230, 400, 410), fill="#4a4a4a")
    draw.ellipse((170, 130, 320, 270), fill="#4a4a4a")
    for ear in ([(180, 170), (185, 95), (235, 138)], [(260, 136), (312, 95), (314, 172)]):
        draw.polygon(ear, fill="#4a4a4a")
    for x in (210, 262):
        draw.ellipse((x, 178, x + 24, 210), fill="#b6f04c")
        draw.ellipse((x + 8, 182, x + 16, 208), fill="#111111")
    draw.polygon([(238, 215), (254, 215), (246, 226)], fill="#f1948a")
    for y in (222, 232, 242):
        draw.line((160, y, 228, 228), fill="#dddddd", width=2)
        draw.line((264, 228, 332, y), fill="#dddddd", width=2)
    draw.arc((350, 250, 480, 400), start=300, end=100, fill="#4a4a4a", width=18)
    draw.ellipse((500, 380, 570, 450), fill="#2e86de", outline="#1b4f72", width=4)
    return image


def skyline() -> Image.Image:
    """900 x 300: houses in a row under a night sky."""
    image, draw = canvas(900, 300, "#1b2a4a")
    draw.ellipse((780, 25, 850, 95), fill="#fdf6d8")
    for i in range(40):
        x, y = (i * 197) % 900, (i * 61) % 120
        draw.ellipse((x, y, x + 3, y + 3), fill="#ffffff")
    colours = ["#c0392b", "#27ae60", "#8e44ad", "#d35400", "#2980b9", "#f39c12", "#16a085"]
    for i, colour in enumerate(colours):
        left, top = 20 + i * 125, 110 + (i * 53) % 90
        draw.rectangle((left, top, left + 100, 270), fill=colour)
        draw.polygon([(left - 8, top), (left + 50, top - 45), (left + 108, top)], fill="#5d4037")
        draw.rectangle((left + 38, 225, left + 62, 270), fill="#3e2723")
        for wx in (left + 15, left + 65):
            draw.rectangle((wx, top + 18, wx + 20, top + 40), fill="#ffeaa7")
    draw.rectangle((0, 270, 900, 300), fill="#2d3436")
    return image


def tower() -> Image.Image:
    """260 x 720: a lighthouse by the sea."""
    image, draw = canvas(260, 720, "#a9dff5")
    draw.rectangle((0, 560, 260, 720), fill="#1f618d")
    for y in range(580, 720, 28):
        for x in range(-20, 260, 52):
            draw.arc((x, y, x + 52, y + 20), start=180, end=360, fill="#d6eaf8", width=3)
    draw.ellipse((30, 520, 230, 640), fill="#7f8c8d")
    for i in range(6):
        top, bottom = 200 + i * 60, 260 + i * 60
        inset = 80 - i * 5
        colour = "#e74c3c" if i % 2 == 0 else "#ffffff"
        draw.polygon(
            [(inset, top), (260 - inset, top), (264 - inset, bottom), (inset - 4, bottom)], fill=colour
        )
    draw.rectangle((88, 140, 172, 200), fill="#ffe66d", outline="#2c3e50", width=6)
    draw.polygon([(76, 140), (130, 80), (184, 140)], fill="#2c3e50")
    draw.polygon([(172, 150), (260, 120), (260, 210)], fill="#fff7c2")
    draw.ellipse((20, 60, 70, 80), fill="#ffffff")
    draw.ellipse((40, 48, 96, 82), fill="#ffffff")
    return image


def sign() -> Image.Image:
    """144 x 144: a small road sign with the word STOP."""
    image, draw = canvas(144, 144, "#d5f5e3")
    draw.rectangle((66, 100, 78, 144), fill="#7f8c8d")
    draw.regular_polygon((72, 62, 56), 8, rotation=22, fill="#c0392b", outline="#ffffff")
    draw.text((72, 62), "STOP", fill="#ffffff", font=ImageFont.load_default(32), anchor="mm")
    return image


def things() -> Image.Image:
    """222 x 187: a scene of the demo checkpoint's world, with a 2 in a red box and a 4 in an orange one."""
    return scene("test", 3769).image


def write_example_images(folder: Path) -> None:
    """Write mat.png, skyline.jpg, tower.png, sign.png and things.png into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    mat().save(folder / "mat.png", optimize=True)
    skyline().save(folder / "skyline.jpg", quality=85)
    tower().save(folder / "tower.png", optimize=True)
    sign().save(folder / "sign.png", optimize=True)
    things().save(folder / "things.png", optimize=True)


if __name__ == "__main__":
    default = Path(__file__).resolve().parent.parent / "examples" / "images"
    write_example_images(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
