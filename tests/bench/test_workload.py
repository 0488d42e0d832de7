"""Images by the number of their visual tokens, and prompts of an exact length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from asap_export.bench.workload import drawn_images, fitted, image_size_for, images_needed
from asap_export.errors import UserError
from asap_export.model.anyres import TileGeometry, max_visual_tokens, visual_token_count

PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
NEXT, ONE_TILE = TileGeometry(336, 14, PINPOINTS), TileGeometry(336, 14, ())
SMALL = TileGeometry(56, 7, ((56, 112), (112, 56), (112, 112), (168, 56), (56, 168)))
IMAGE = 3


@pytest.mark.parametrize(
    ("wanted", "count"), [(576, 576), (1176, 1176), (2340, 2340), (2880, 2928), (2928, 2928)]
)
def test_the_usual_numbers_of_visual_tokens(wanted, count):
    assert visual_token_count(image_size_for(wanted, NEXT), NEXT) == count


def test_a_square_image_is_preferred():
    assert image_size_for(1176, NEXT) == (336, 336)
    assert image_size_for(2928, NEXT) == (672, 672)
    assert image_size_for(576, ONE_TILE) == (336, 336)


@given(some.integers(1, max_visual_tokens(SMALL)))
def test_the_image_has_enough_and_no_smaller_one_would_do(wanted):
    height, width = image_size_for(wanted, SMALL)
    count = visual_token_count((height, width), SMALL)
    assert count >= wanted
    others = {visual_token_count((112, side), SMALL) for side in range(1, 113)}
    assert not [other for other in others if wanted <= other < count]


@given(some.integers(1, 20_000))
def test_as_many_images_as_it_takes(wanted):
    images = images_needed(wanted, NEXT)
    assert (images - 1) * 2928 < wanted <= images * 2928


def test_more_than_an_image_can_have_is_refused():
    with pytest.raises(UserError, match="expected 1 to 2928 visual tokens of an image, found 2929"):
        image_size_for(2929, NEXT)


def test_drawn_images_are_the_same_every_time_and_not_flat(tmp_path):
    first = [file.read_bytes() for file in drawn_images(tmp_path, 600, 2, SMALL)]
    again = drawn_images(tmp_path, 600, 2, SMALL)
    assert [file.read_bytes() for file in again] == first and first[0] != first[1]
    sizes = [Image.open(file).size[::-1] for file in again]
    assert sum(visual_token_count(size, SMALL) for size in sizes) >= 600
    assert np.asarray(Image.open(again[0])).std() > 10


@given(
    some.lists(some.integers(10, 50), max_size=9),
    some.integers(0, 40),
    some.lists(some.integers(10, 50), min_size=1, max_size=9),
    some.data(),
)
def test_a_prompt_gets_exactly_so_many_tokens_of_either_kind(before, visual, behind, data):
    wanted, text = data.draw(some.integers(0, visual)), data.draw(some.integers(1, 60))
    ids = fitted([*before, *[IMAGE] * visual, *behind], IMAGE, wanted, text)
    assert len(ids) == wanted + text and (ids == IMAGE).sum() == wanted
    assert ids[-1] == behind[-1]
    if text > len(before) and wanted:
        assert ids[: len(before)].tolist() == before


def test_a_prompt_without_enough_is_refused():
    with pytest.raises(UserError, match="expected at least 5 visual tokens"):
        fitted([1, IMAGE, 2], IMAGE, 5, 10)
    with pytest.raises(UserError, match="expected text behind the last image"):
        fitted([1, IMAGE], IMAGE, 1, 10)
