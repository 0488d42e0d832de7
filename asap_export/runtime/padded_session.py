"""The part of a decoder before the cut: prompts by a graph that cuts, steps by one whose caches stay inside."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from asap_export.runtime.buffers import Buffers
from asap_export.runtime.cache import present_name
from asap_export.runtime.held_caches import HeldCaches, cache_arrays
from asap_export.runtime.openvino_session import OpenVinoSession, StatefulSession
from asap_export.runtime.session import Tensor

__all__ = ["EarlySession", "PaddedSession"]

_Array = npt.NDArray[Any]
_GRANULE = 64  # tokens; a prompt is padded to a multiple of it
_NEW = ("inputs_embeds", "position_ids", "visual_mask")  # [B, T, ...]
_MASK, _EARLY_MASK = "attention_mask", "early_attention_mask"


@dataclass(frozen=True)
class EarlySession:
    """A ``Session`` that feeds prompts to one and single tokens to another, whose graph has no cut; device tensors
    of caches are the handles of either."""

    prompts: "PaddedSession"
    steps: StatefulSession

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it takes."""
        return self.prompts.inputs

    def run(
        self,
        inputs: Mapping[str, Tensor],
        on_host: Collection[str] = (),
        into: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        visual = np.asarray(inputs["visual_mask"])
        steps = visual.shape[1] == 1 and not visual.any()
        return (self.steps if steps else self.prompts).run(inputs, on_host, into)

    def longest(self, name: str, axis: int) -> int | None:
        return None


@dataclass(frozen=True)
class _Held(HeldCaches):
    """Caches in the first ``length`` places of buffers."""

    buffers: Buffers
    length: int

    @property
    def shape(self) -> tuple[int, ...]:
        return next(iter(self.buffers.arrays.values())).shape

    @property
    def nbytes(self) -> int:
        return next(iter(self.buffers.arrays.values())).nbytes

    def arrays(self) -> dict[str, _Array]:
        return self.buffers.content(self.length)


@dataclass(frozen=True)
class PaddedSession:
    """A ``Session`` that runs another one at rounded lengths, with masks over what it adds: OpenVINO compiles its
    attention anew for every length. Device tensors of caches are handles.

    New tokens are padded on the left, as rows of a batch are, if they are not yet; caches on the right, in buffers
    that grow.
    """

    session: OpenVinoSession

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it takes."""
        return self.session.inputs

    def run(
        self,
        inputs: Mapping[str, Tensor],
        on_host: Collection[str] = (),
        into: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        assert not into, "OpenVINO keeps its caches where it made them"
        held = self._held(inputs)
        new = inputs["inputs_embeds"].shape[1]
        # A row that is padded already may keep padding to be as long as another: there must be no more of it.
        whole = new > 1 and bool(inputs[_MASK][:, -new:].all())
        behind, before = held.buffers.capacity - held.length, -new % _GRANULE if whole else 0
        given = {name: inputs[name] for name in self.inputs if name not in self.session.caches}
        given |= {name: _widened(given[name], 0, before) for name in _NEW}
        own = _EARLY_MASK if _EARLY_MASK in given else _MASK  # the mask of these caches
        for name in {own, _MASK}:
            places = given[name].shape[1] - new
            given[name] = _widened(given[name], places, before + (behind if name == own else 0))
        outputs = self.session.run(given | held.buffers.arrays, behind=held.buffers.capacity)
        outputs["kept_index"] = outputs["kept_index"] - before
        return outputs | self._grown(held, outputs, new, on_host)

    def longest(self, name: str, axis: int) -> int | None:
        return self.session.longest(name, axis)

    def _held(self, inputs: Mapping[str, Tensor]) -> _Held:
        first = inputs[self.session.caches[0]]
        if isinstance(first, _Held):
            return first
        arrays = cache_arrays({name: inputs[name] for name in self.session.caches})
        array = arrays[self.session.caches[0]]
        rows, kv_heads, length, head_dim = array.shape
        buffers = Buffers.empty(self.session.caches, rows, kv_heads, head_dim, array.dtype, length).claimed(
            0, length
        )
        for name in self.session.caches:
            buffers.write(name, 0, arrays[name])
        return _Held(buffers, length)

    def _grown(
        self, held: _Held, outputs: Mapping[str, _Array], new: int, on_host: Collection[str]
    ) -> dict[str, Tensor]:
        """Caches with what the run has added to them: the tokens that were kept, or all new ones."""
        added = {name: outputs[present_name(name)][:, :, -new:] for name in self.session.caches}
        length = held.length + added[self.session.caches[0]].shape[2]
        buffers = held.buffers.claimed(held.length, length)
        for name, tokens in added.items():
            buffers.write(name, held.length, tokens)
        wanted = [name for name in self.session.caches if present_name(name) in on_host]
        content = buffers.content(length, wanted)
        grown = _Held(buffers, length)
        return {present_name(name): content.get(name, grown) for name in self.session.caches}


def _widened(array: _Array, place: int, count: int) -> _Array:
    """``count`` zeros put in front of place number ``place`` of an array [B, T, ...]."""
    if not count:
        return array
    zeros = np.zeros((array.shape[0], count, *array.shape[2:]), array.dtype)
    return np.concatenate([array[:, :place], zeros, array[:, place:]], axis=1)
