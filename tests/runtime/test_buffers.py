"""Caches that grow in place: what one of them holds never changes, whoever else goes on from it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from asap_export.runtime.buffers import Buffers

ROWS, HEADS, SIZE = 2, 3, 4
NAMES = ("past_key_values.0.key", "past_key_values.0.value")

Floats = npt.NDArray[np.float32]


def empty(places: int) -> Buffers:
    return Buffers.empty(NAMES, ROWS, HEADS, SIZE, np.dtype(np.float32), places)


@dataclass(frozen=True)
class Held:
    """A cache, and what it must hold: [B, Hkv, P, d] by name."""

    buffers: Buffers
    content: dict[str, Floats]

    @property
    def length(self) -> int:
        return self.content[NAMES[0]].shape[2]

    def intact(self) -> bool:
        found = self.buffers.content(self.length)
        return all(np.array_equal(found[name], self.content[name]) for name in NAMES)

    def grown(self, new: int, seed: int = 0) -> "Held":
        """What a decoder does: claim places, and write to them."""
        generator = np.random.default_rng(seed)
        buffers = self.buffers.claimed(self.length, self.length + new)
        content = {}
        for name in NAMES:
            fresh = generator.random((ROWS, HEADS, new, SIZE), np.float32)
            buffers.write(name, self.length, fresh)
            content[name] = np.concatenate([self.content[name], fresh], axis=2)
        return Held(buffers, content)


def nothing(places: int) -> Held:
    return Held(empty(places), dict.fromkeys(NAMES, np.empty((ROWS, HEADS, 0, SIZE), np.float32)))


def test_a_cache_grows_in_place_while_there_is_room_and_then_by_a_copy() -> None:
    prompt = nothing(100).grown(100)
    assert prompt.buffers.capacity == 256  # 100, an eighth and 128 more, rounded up
    full = prompt.grown(140)
    assert full.buffers is prompt.buffers
    longer = full.grown(17)
    assert longer.buffers is not full.buffers
    assert longer.buffers.capacity == 512  # 257, an eighth and 128 more, rounded up
    assert prompt.intact() and full.intact() and longer.intact()


def test_whoever_goes_on_from_the_same_place_second_gets_a_copy() -> None:
    prompt = nothing(5).grown(3)
    first, second = prompt.grown(2, seed=1), prompt.grown(1, seed=2)
    assert first.buffers is prompt.buffers
    assert second.buffers is not prompt.buffers
    assert first.grown(1).buffers is first.buffers
    assert prompt.intact() and first.intact() and second.intact()


def test_of_threads_that_claim_at_once_one_writes_in_place() -> None:
    for _ in range(20):
        prompt = nothing(10).grown(3)
        with ThreadPoolExecutor(4) as pool:
            caches = list(pool.map(lambda seed, start=prompt: start.grown(2, seed), range(4)))
        assert sum(cache.buffers is prompt.buffers for cache in caches) == 1
        assert all(cache.intact() for cache in (prompt, *caches))


sizes = st.one_of(st.integers(0, 4), st.integers(0, 300))


@given(st.integers(0, 20), st.lists(st.tuples(st.integers(0, 2**16), sizes), max_size=20))
def test_what_a_cache_holds_never_changes(places: int, steps: list[tuple[int, int]]) -> None:
    """Each step goes on from any of the caches before it."""
    caches = [nothing(places)]
    for seed, (number, new) in enumerate(steps):
        caches.append(caches[number % len(caches)].grown(new, seed))
        assert all(cache.intact() for cache in caches)
