"""TensorRT's nested phases as one bar."""

import pytest

from asap_export.engine.monitor import BuildProgress


@pytest.fixture
def heard():
    return []


@pytest.fixture
def build(heard):
    return BuildProgress(lambda fraction, phase: heard.append((fraction, phase)))


def test_a_phase_divides_one_step_of_the_phase_around_it(build, heard):
    build.start("Building engine", 2)
    build.step("Building engine", 0)
    build.start("Timing tactics", 4)
    build.step("Timing tactics", 2)
    assert build.fraction == 0.5 + 0.5 * 3 / 4
    build.finish("Timing tactics")
    build.step("Building engine", 1)
    assert build.fraction == 1
    assert [fraction for fraction, _ in heard] == [0, 0.5, 0.875, 1]
    assert heard[2] == (0.875, "timing tactics")


def test_thousands_of_steps_are_told_in_hundreds(build, heard):
    build.start("Timing graph nodes", 100_000)
    for number in range(100_000):
        build.step("Timing graph nodes", number)
    assert 100 <= len(heard) <= 202


def test_the_bar_never_goes_back(build, heard):
    for phase in ("First", "Second"):
        build.start(phase, 1)
        build.step(phase, 0)
        build.finish(phase)
    assert [fraction for fraction, _ in heard] == [0, 1]
