"""What a scene is made of, and where things are placed on a canvas."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

__all__ = ["COLORS", "DIGITS", "SHAPES", "WORDS", "Size", "Thing", "layout"]

COLORS = {
    "red": "#d62020",
    "orange": "#ff8c1a",
    "yellow": "#f2d200",
    "green": "#1f9e3a",
    "blue": "#1f4fd6",
    "purple": "#8a2be2",
    "pink": "#ff7ab8",
    "black": "#1a1a1a",
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
DIGITS = tuple("0123456789")
WORDS = (
    "BOOK", "BUS", "CAT", "DOG", "EXIT", "FISH", "GOLD", "HOME",
    "KEY", "MILK", "OPEN", "RAIN", "STOP", "SUN", "TAXI", "TREE",
)  # fmt: skip

Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class Thing:
    """One thing of a scene: a filled shape, a ``box`` around a digit, or a ``sign`` with a word.

    ``left``, ``top``, ``width`` and ``height`` are in pixels of the canvas.
    """

    form: str
    color: str
    text: str
    left: float
    top: float
    width: float
    height: float

    @property
    def center(self) -> tuple[float, float]:
        return self.left + self.width / 2, self.top + self.height / 2

    @property
    def name(self) -> str:
        return f"{self.color} {self.form}"


Cast = Sequence[tuple[str, str, str]]  # form, colour and text of the things to place


def layout(size: Size, random: Random, cast: Cast | None = None) -> tuple[Thing, ...]:
    """Things of different sizes that do not touch, anywhere on a canvas.

    In the usual cast boxes differ in colour among themselves and so do signs, so that a question can name one of
    them. Things that find no room are left out.
    """
    width, height = size
    scale = min(1.8, max(0.9, (width * height) ** 0.5 / 112))
    placed: list[Thing] = []
    for form, color, text in cast or _cast(width * height / scale**2, random):
        side = random.uniform(15, 30) * scale
        if form == "box":
            side = max(side, 18 * scale)
        wide, high = (max(side, 27 * scale), 15 * scale) if form == "sign" else (side, side)
        for _ in range(30):
            left, top = random.uniform(1, width - wide - 1), random.uniform(1, height - high - 1)
            thing = Thing(form, color, text, left, top, wide, high)
            if left > 0 and top > 0 and not any(_near(thing, other) for other in placed):
                placed.append(thing)
                break
    return tuple(placed)


def _cast(room: float, random: Random) -> Cast:
    """``room`` is the canvas in square pixels of scale 1."""
    colors = list(COLORS)
    most = max(3, min(10, round(room / 1500)))
    count = random.randint(max(2, most - 4), most)
    boxes = random.choice((0, 1, 1, 2)) if count > 2 else random.choice((0, 1))
    signs = random.choice((0, 1, 1, 2)) if count > 3 else random.choice((0, 1))
    cast = [("box", color, random.choice(DIGITS)) for color in random.sample(colors, boxes)]
    cast += [("sign", color, random.choice(WORDS)) for color in random.sample(colors, signs)]
    shapes = max(1, count - len(cast))
    repeated = random.choice(SHAPES) if random.random() < 0.5 else None
    favorite = random.choice(colors) if random.random() < 0.3 else None
    for _ in range(shapes):
        shape = repeated if repeated and random.random() < 0.6 else random.choice(SHAPES)
        color = favorite if favorite and random.random() < 0.6 else random.choice(colors)
        cast.append((shape, color, ""))
    random.shuffle(cast)
    return cast


def _near(one: Thing, other: Thing) -> bool:
    gap = 2.0
    return (
        one.left < other.left + other.width + gap
        and other.left < one.left + one.width + gap
        and one.top < other.top + other.height + gap
        and other.top < one.top + one.height + gap
    )
