"""Questions about a scene whose answers the layout alone decides, and only where they are clear."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from asap_export.scenes.things import COLORS, SHAPES, Size, Thing

__all__ = ["KINDS", "SceneQuestion", "ask"]

CLEARLY_LARGER = 1.25  # of two widths
CLEARLY_APART = 0.12  # of the canvas
MOST_COUNTED = 4


@dataclass(frozen=True)
class SceneQuestion:
    """``kind`` is one of ``KINDS``; the answer is one word, or two for a place."""

    text: str
    answer: str
    kind: str


@dataclass(frozen=True)
class _View:
    """A scene as the questions see it."""

    size: Size
    things: Sequence[Thing]
    random: Random

    @property
    def shapes(self) -> list[Thing]:
        return [thing for thing in self.things if thing.form in SHAPES]

    def alone(self, attribute: str) -> list[Thing]:
        """Shapes whose form, colour or name no other shape has."""
        counts = Counter(getattr(shape, attribute) for shape in self.shapes)
        return [shape for shape in self.shapes if counts[getattr(shape, attribute)] == 1]

    def nameable(self) -> list[Thing]:
        """Things that "the red star" or "the blue box" means, and nothing else."""
        counts = Counter(thing.name for thing in self.things)
        return [thing for thing in self.things if counts[thing.name] == 1]

    def pick(self, things: list[Thing]) -> Thing | None:
        return self.random.choice(things) if things else None


Found = tuple[str, str] | None  # text and answer


def _color(view: _View) -> Found:
    shape = view.pick(view.alone("form"))
    return (f"What color is the {shape.form}?", shape.color) if shape else None


def _shape(view: _View) -> Found:
    shape = view.pick(view.alone("color"))
    return (f"Which shape is {shape.color}?", shape.form) if shape else None


def _number(view: _View) -> Found:
    box = view.pick([thing for thing in view.things if thing.form == "box"])
    return (f"What number is in the {box.color} box?", box.text) if box else None


def _word(view: _View) -> Found:
    sign = view.pick([thing for thing in view.things if thing.form == "sign"])
    return (f"What word is on the {sign.color} sign?", sign.text) if sign else None


def _count_shape(view: _View) -> Found:
    counts = Counter(shape.form for shape in view.shapes)
    return _counted(view, {_plural(shape): counts[shape] for shape in SHAPES}, "How many {} are there?")


def _count_color(view: _View) -> Found:
    counts = Counter(shape.color for shape in view.shapes)
    return _counted(view, {color: counts[color] for color in COLORS}, "How many shapes are {}?")


def _counted(view: _View, counts: dict[str, int], text: str) -> Found:
    """Any count that occurs is as likely as another, however many names have it."""
    counts = {name: count for name, count in counts.items() if count <= MOST_COUNTED}
    count = view.random.choice(sorted(set(counts.values())))
    name = view.random.choice([name for name, n in counts.items() if n == count])
    return text.format(name), str(count)


def _plural(form: str) -> str:
    return f"{form}es" if form.endswith("s") else f"{form}s"


def _exists(view: _View) -> Found:
    present = {shape.name for shape in view.shapes}
    mixed = {f"{one.color} {other.form}" for one in view.shapes for other in view.shapes} - present
    absent = {f"{color} {shape}" for color in COLORS for shape in SHAPES} - present
    if present and view.random.random() < 0.5:
        names, answer = present, "yes"
    else:
        names, answer = (mixed if mixed and view.random.random() < 0.7 else absent), "no"
    return f"Is there a {view.random.choice(sorted(names))}?", answer


def _side(view: _View) -> Found:
    named = view.nameable()
    axis = view.random.choice((0, 1))
    pairs = [
        (one, other)
        for one in named
        for other in named
        if abs(one.center[axis] - other.center[axis]) > CLEARLY_APART * view.size[axis]
    ]
    if not pairs:
        return None
    one, other = view.random.choice(pairs)
    first, second = ("left", "right of") if axis == 0 else ("above", "below")
    answer = first if one.center[axis] < other.center[axis] else second.split()[0]
    return f"Is the {one.name} {first} or {second} the {other.name}?", answer


def _largest(view: _View) -> Found:
    most = view.random.random() < 0.5
    ranked = sorted(view.shapes, key=lambda shape: shape.width, reverse=most)
    if len(ranked) < 2:
        return None
    ratio = ranked[0].width / ranked[1].width
    if max(ratio, 1 / ratio) < CLEARLY_LARGER:
        return None
    name = "largest" if most else "smallest"
    if view.random.random() < 0.5:
        return f"What color is the {name} shape?", ranked[0].color
    return f"Which shape is the {name}?", ranked[0].form


def _place(view: _View) -> Found:
    clear = [
        thing
        for thing in view.nameable()
        if all(abs(c / s - 0.5) > CLEARLY_APART / 2 for c, s in zip(thing.center, view.size, strict=True))
    ]
    thing = view.pick(clear)
    if thing is None:
        return None
    x, y = thing.center
    row = "top" if y < view.size[1] / 2 else "bottom"
    column = "left" if x < view.size[0] / 2 else "right"
    return f"Where is the {thing.name}?", f"{row} {column}"


def _compare_numbers(view: _View) -> Found:
    boxes = [thing for thing in view.things if thing.form == "box"]
    if len(boxes) < 2 or boxes[0].text == boxes[1].text:
        return None
    one, other = view.random.sample(boxes[:2], 2)
    larger = max(one, other, key=lambda box: int(box.text))
    return f"Which box has the larger number, {one.color} or {other.color}?", larger.color


def _same_color(view: _View) -> Found:
    alone = view.alone("form")
    if len(alone) < 2:
        return None
    pairs = [(a, b) for a in alone for b in alone if a is not b]
    equal = [(a, b) for a, b in pairs if a.color == b.color]
    # Few scenes have such a pair, and "no" must not be a good guess.
    if not equal and view.random.random() < 0.6:
        return None
    one, other = view.random.choice(equal if equal and view.random.random() < 0.7 else pairs)
    answer = "yes" if one.color == other.color else "no"
    return f"Are the {one.form} and the {other.form} the same color?", answer


_ASKERS: dict[str, Callable[[_View], Found]] = {
    "color": _color,
    "shape": _shape,
    "number": _number,
    "word": _word,
    "count shapes": _count_shape,
    "count colors": _count_color,
    "exists": _exists,
    "side": _side,
    "largest": _largest,
    "place": _place,
    "compare numbers": _compare_numbers,
    "same color": _same_color,
}
KINDS = tuple(_ASKERS)


def ask(
    size: Size, things: Sequence[Thing], count: int, random: Random, kinds: Sequence[str] = KINDS
) -> tuple[SceneQuestion, ...]:
    """Up to ``count`` different questions, of as many ``kinds`` as the scene allows before any comes again."""
    view = _View(size, things, random)
    asked: dict[str, SceneQuestion] = {}
    for _ in range(4 * len(KINDS) // len(kinds) if count else 0):
        for kind in random.sample(kinds, len(kinds)):
            found = _ASKERS[kind](view)
            if found is not None and found[0] not in asked:
                asked[found[0]] = SceneQuestion(found[0], found[1], kind)
            if len(asked) == count:
                return tuple(asked.values())
    return tuple(asked.values())
