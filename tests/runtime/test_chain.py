"""Parts of a graph as one session; what real parts compute is seen in tests/engine/test_split.py."""

import numpy as np
import pytest

from asap_export.runtime.chain import ChainedSession, Link


class Adding:
    """A session that adds one to each input under the next name, and remembers what it was given."""

    def __init__(self, renamed: dict[str, str], longest: int | None = None) -> None:
        self.renamed, self._longest = renamed, longest
        self.given: dict[str, object] = {}

    def run(self, inputs, on_host=()):
        self.given = dict(inputs)
        return {self.renamed[name]: value + 1 for name, value in inputs.items() if name in self.renamed}

    def longest(self, name: str, axis: int) -> int | None:
        return self._longest


@pytest.fixture
def parts() -> tuple[Adding, Adding]:
    return Adding({"x": "hidden", "past.0": "present.0"}, 100), Adding(
        {"hidden": "y", "past.1": "present.1"}, 80
    )


@pytest.fixture
def chain(parts) -> ChainedSession:
    first, second = parts
    links = [Link(first, ["x", "past.0", "mask"]), Link(second, ["hidden", "past.1", "mask"])]
    return ChainedSession(links, ["y", "present.0", "present.1"])


def test_each_part_is_given_what_it_takes_and_no_copy_of_it(chain, parts) -> None:
    inputs = {name: np.array(0) for name in ("x", "past.0", "past.1", "mask")}
    outputs = chain.run(inputs)
    assert outputs == {"y": 2, "present.0": 1, "present.1": 1}
    first, second = parts
    assert first.given.keys() == {"x", "past.0", "mask"}
    assert second.given.keys() == {"hidden", "past.1", "mask"}
    assert second.given["mask"] is inputs["mask"]


def test_the_chain_takes_what_its_narrowest_part_takes(chain) -> None:
    assert chain.longest("mask", 1) == 80
    assert chain.longest("x", 1) == 100
    assert chain.longest("nowhere", 0) is None
