"""Pixels of a scene."""

import math
from collections.abc import Sequence
from functools import cache
from random import Random

from PIL import Image, ImageDraw, ImageFont

from asap_export.scenes.things import COLORS, Size, Thing

__all__ = ["coverage", "draw"]

DARK = "#1a1a1a"
OVERSAMPLING = 2  # Pillow draws without smoothing
PAPERS = ("#ffffff", "#f7f1e3", "#e9eef2", "#eaf4e4", "#f3e9f2", "#dfe6ea")
CLUTTER = ("#b9c3ca", "#cbbda6", "#b4c7ad", "#c6b0c1", "#a9b3b9", "#d8cab0")


def draw(size: Size, things: Sequence[Thing], random: Random) -> Image.Image:
    """An RGB picture of the things on plain or cluttered paper."""
    large = (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING)
    image = Image.new("RGB", large, random.choice(PAPERS))
    pen = ImageDraw.Draw(image)
    if random.random() < 0.5:
        _clutter(pen, large, random)
    for thing in things:
        _paint(pen, thing, OVERSAMPLING, COLORS[thing.color])
    return image.reduce(OVERSAMPLING)


def coverage(size: Size, things: Sequence[Thing]) -> Image.Image:
    """Which thing each pixel shows: 0 for paper, 1 for the first thing, and so on (mode "L")."""
    image = Image.new("L", size, 0)
    pen = ImageDraw.Draw(image)
    for number, thing in enumerate(things, start=1):
        if thing.text:
            pen.rectangle(_bounds(thing, 1), fill=number)
        else:
            _paint(pen, thing, 1, number)
    return image


def _clutter(pen: ImageDraw.ImageDraw, size: Size, random: Random) -> None:
    width, height = size
    for _ in range(random.randint(10, 40)):
        x, y = random.uniform(0, width), random.uniform(0, height)
        angle, length = random.uniform(0, math.tau), random.uniform(8, 80)
        tint = random.choice(CLUTTER)
        if random.random() < 0.5:
            end = (x + length * math.cos(angle), y + length * math.sin(angle))
            pen.line((x, y, *end), fill=tint, width=random.randint(1, 4))
        else:
            pen.ellipse((x, y, x + length / 4, y + length / 4), outline=tint, width=2)


def _bounds(thing: Thing, scale: int) -> tuple[float, float, float, float]:
    left, top = thing.left * scale, thing.top * scale
    return left, top, left + thing.width * scale - 1, top + thing.height * scale - 1


def _paint(pen: ImageDraw.ImageDraw, thing: Thing, scale: int, fill: str | int) -> None:
    bounds = _bounds(thing, scale)
    if thing.form == "circle":
        pen.ellipse(bounds, fill=fill)
    elif thing.form == "square":
        pen.rectangle(bounds, fill=fill)
    elif thing.form == "box":
        pen.rectangle(bounds, fill="#ffffff", outline=fill, width=round(max(2.0, thing.width * 0.12) * scale))
        _write(pen, thing, scale, thing.height * 0.72, DARK)
    elif thing.form == "sign":
        pen.rectangle(bounds, fill=fill)
        ink = DARK if thing.color in ("yellow", "orange", "pink") else "#ffffff"
        _write(pen, thing, scale, min(thing.height * 0.8, thing.width * 0.36), ink)
    else:
        left, top, right, bottom = bounds
        points = [(left + x * (right - left), top + y * (bottom - top)) for x, y in _outline(thing.form)]
        pen.polygon(points, fill=fill)


def _write(pen: ImageDraw.ImageDraw, thing: Thing, scale: int, points: float, fill: str) -> None:
    x, y = thing.center
    pen.text((x * scale, y * scale), thing.text, fill=fill, font=_font(round(points * scale)), anchor="mm")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@cache
def _outline(form: str) -> tuple[tuple[float, float], ...]:
    """Corners of a shape in a unit square, y downwards."""
    if form == "triangle":
        return ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0))
    if form == "cross":
        a, b = 0.32, 0.68
        return (
            (a, 0),
            (b, 0),
            (b, a),
            (1, a),
            (1, b),
            (b, b),
            (b, 1),
            (a, 1),
            (a, b),
            (0, b),
            (0, a),
            (a, a),
        )
    if form == "star":
        turns = [math.pi * (i / 5 - 0.5) for i in range(10)]
        radii = [0.55 if i % 2 == 0 else 0.22 for i in range(10)]
        return tuple(
            (0.5 + r * math.cos(t), 0.53 + r * math.sin(t)) for t, r in zip(turns, radii, strict=True)
        )
    if form == "heart":
        # The usual parametric heart, 32 wide and 29 high, fitted into the square.
        turns = [math.tau * i / 40 for i in range(40)]
        waves = [
            13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in turns
        ]
        return tuple((0.5 + 0.5 * math.sin(t) ** 3, (12 - y) / 29) for t, y in zip(turns, waves, strict=True))
    raise ValueError(form)
