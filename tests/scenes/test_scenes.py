"""The synthetic world: the same scene on every call, and questions whose answers its picture shows."""

from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageColor

from asap_export.scenes import KINDS, Scene, scene
from asap_export.scenes.drawing import coverage
from asap_export.scenes.questions import ask
from asap_export.scenes.things import COLORS, SHAPES, Thing, layout

numbers = st.integers(0, 10**6)
some = settings(max_examples=40, deadline=None)


def named(drawn: Scene, name: str) -> Thing:
    found = [thing for thing in drawn.things if thing.name == name]
    assert len(found) == 1, f"a question about {name} must mean one thing"
    return found[0]


@given(numbers)
@some
def test_a_scene_is_the_same_on_every_call_and_another_in_every_split(index: int) -> None:
    one, again, other = scene("test", index), scene("test", index), scene("validation", index)
    assert one.image.tobytes() == again.image.tobytes()
    assert one.questions == again.questions
    assert one.image.tobytes() != other.image.tobytes()


@given(numbers, st.integers(70, 260), st.integers(70, 260))
@some
def test_things_lie_on_the_canvas_and_do_not_touch(seed: int, width: int, height: int) -> None:
    things = layout((width, height), Random(seed))
    for i, one in enumerate(things):
        assert 0 <= one.left <= one.left + one.width <= width
        assert 0 <= one.top <= one.top + one.height <= height
        for other in things[:i]:
            apart_x = max(one.left - other.left - other.width, other.left - one.left - one.width)
            apart_y = max(one.top - other.top - other.height, other.top - one.top - one.height)
            assert max(apart_x, apart_y) > 0
    for form in ("box", "sign"):
        colors = [thing.color for thing in things if thing.form == form]
        assert len(colors) == len(set(colors))


@given(numbers)
@some
def test_every_thing_is_seen_in_its_own_color_where_it_is_said_to_be(index: int) -> None:
    drawn = scene("train", index)
    pixels = np.asarray(drawn.image).astype(int)
    shown = np.asarray(coverage(drawn.image.size, drawn.things))
    for number, thing in enumerate(drawn.things, start=1):
        color = np.array(ImageColor.getrgb(COLORS[thing.color]))
        close = np.abs(pixels[shown == number] - color).max(axis=1) < 12
        assert close.mean() > (0.15 if thing.form == "box" else 0.3), thing


@given(numbers)
@some
def test_answers_follow_from_the_layout(index: int) -> None:
    drawn = scene("train", index, questions=30)
    shapes = [thing for thing in drawn.things if thing.form in SHAPES]
    assert len({question.text for question in drawn.questions}) == len(drawn.questions)
    for question in drawn.questions:
        words = question.text.rstrip("?").split()
        if question.kind == "color":
            assert [s.color for s in shapes if s.form == words[-1]] == [question.answer]
        elif question.kind == "shape":
            assert [s.form for s in shapes if s.color == words[-1]] == [question.answer]
        elif question.kind in ("number", "word"):
            form, color = words[-1], words[-2]
            assert [t.text for t in drawn.things if (t.form, t.color) == (form, color)] == [question.answer]
        elif question.kind == "count shapes":
            plural = {f"{form}es" if form == "cross" else f"{form}s": form for form in SHAPES}
            assert Counter(s.form for s in shapes)[plural[words[2]]] == int(question.answer)
        elif question.kind == "count colors":
            assert Counter(s.color for s in shapes)[words[-1]] == int(question.answer)
        elif question.kind == "exists":
            assert (" ".join(words[-2:]) in {s.name for s in shapes}) == (question.answer == "yes")
        elif question.kind == "side":
            one = named(drawn, " ".join(words[2:4])).center
            other = named(drawn, " ".join(words[-2:])).center
            where = {"left": one[0] < other[0], "right": one[0] > other[0]}
            where |= {"above": one[1] < other[1], "below": one[1] > other[1]}
            assert where[question.answer]
        elif question.kind == "place":
            x, y = named(drawn, " ".join(words[-2:])).center
            row = "top" if y < drawn.image.height / 2 else "bottom"
            column = "left" if x < drawn.image.width / 2 else "right"
            assert question.answer == f"{row} {column}"
        elif question.kind == "largest":
            extreme = max if "largest" in words else min
            thing = extreme(shapes, key=lambda shape: shape.width)
            assert question.answer == (thing.color if "color" in words else thing.form)
        elif question.kind == "compare numbers":
            boxes = {t.color: int(t.text) for t in drawn.things if t.form == "box"}
            assert boxes[question.answer] == max(boxes.values())
        else:
            assert question.kind == "same color"
            one, other = ([s.color for s in shapes if s.form == word] for word in (words[2], words[5]))
            assert (one == other) == (question.answer == "yes")


def test_all_kinds_occur_and_no_answer_of_a_kind_is_nearly_always_right() -> None:
    asked = [question for i in range(300) for question in scene("test", i).questions]
    assert {question.kind for question in asked} == set(KINDS)
    for kind in KINDS:
        answers = Counter(question.answer for question in asked if question.kind == kind)
        assert answers.most_common(1)[0][1] < 0.7 * answers.total(), kind


def test_a_scene_without_any_shape_can_be_asked_about() -> None:
    asked = ask((100, 100), (), 20, Random(1))
    assert {question.kind for question in asked} == {"count shapes", "count colors", "exists"}
    assert {question.answer for question in asked} == {"0", "no"}


@pytest.mark.parametrize("size", [(112, 56), (84, 224), (224, 224)])
def test_a_size_can_be_given(size: tuple[int, int]) -> None:
    assert scene("train", 3, size=size).image.size == size
