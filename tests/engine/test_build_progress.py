"""TensorRT's nested phases as one bar, and Ctrl-C."""

import signal

import pytest

from asap_export.engine.monitor import BuildProgress


@pytest.fixture
def heard():
    return []


@pytest.fixture
def build(heard):
    return BuildProgress("Build decoder.engine", heard.append)


def test_a_phase_divides_one_step_of_the_phase_around_it(build, heard):
    build.start("Building engine", 2)
    build.step("Building engine", 0)
    build.start("Timing tactics", 4)
    build.step("Timing tactics", 2)
    assert build.fraction == 0.5 + 0.5 * 3 / 4
    build.finish("Timing tactics")
    build.step("Building engine", 1)
    assert build.fraction == 1
    assert [report.fraction for report in heard] == [0, 0.5, 0.875, 1]
    assert heard[2].detail == "timing tactics"


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
    assert [report.fraction for report in heard] == [0, 1]


def test_ctrl_c_stops_at_the_next_step(build):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), build.watching_interrupts():
        build.start("Building engine", 2)
        assert build.step("Building engine", 0)
        signal.raise_signal(signal.SIGINT)
        assert not build.step("Building engine", 1)
        raise RuntimeError("what TensorRT says when it is stopped")
    assert signal.getsignal(signal.SIGINT) is before


def test_other_errors_pass(build):
    with pytest.raises(ValueError, match="as it was"), build.watching_interrupts():
        raise ValueError("as it was")
