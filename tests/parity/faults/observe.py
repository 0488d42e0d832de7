"""What every value of a sound decoder is, in cases like those that verify runs."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from asap_export.parity.forms import StoredGraph
from asap_export.runtime.session import NUMPY_DTYPES
from faults.fault import Decoder, Form

__all__ = ["Feeds", "Seen", "cases_of", "observe"]

Feeds = Mapping[str, npt.NDArray[Any]]

_NUMPY = {"FLOAT": "fp32", "FLOAT16": "fp16"}


class Seen(NamedTuple):
    """A value in one case."""

    dtype: str
    shape: tuple[int, ...]
    content: str  # a hash of its bytes


def cases_of(decoder: onnx.ModelProto, folder: Path) -> dict[str, Feeds]:
    """Inputs by case, made up: prompts, one of them kept in full, a later turn, a padded batch, decode steps.

    ``decoder`` is a ``decoder.onnx``; what it hands on is what later steps are given.
    """
    run = _Chain(decoder, folder)
    picture = np.arange(8, 42)
    prompt = run.step("a prompt", [(0, picture)], keep=16)
    run.step("every token kept", [(0, picture)], keep=1 << 20)
    run.step("a decode step", [(0, picture[:0])], new=1, past=prompt)
    run.step("a later turn with an image", [(0, picture + 2)], keep=16, past=prompt)
    batch = run.step("a padded batch", [(0, picture), (34, picture[:0]), (7, picture[7:-9])], keep=12)
    run.step("a decode step of the batch", [(0, picture[:0])] * 3, new=1, past=batch)
    return run.cases


class _Chain:
    """Runs steps one after another."""

    def __init__(self, decoder: onnx.ModelProto, folder: Path) -> None:
        self.cases: dict[str, Feeds] = {}
        self._session = StoredGraph(decoder, folder).open()
        self._outputs = [value.name for value in decoder.graph.output]
        inputs = {value.name: value for value in ir.from_proto(decoder).graph.inputs}
        self._caches = {name: value for name, value in inputs.items() if str(name).startswith("past")}
        embeds = inputs["inputs_embeds"]
        assert embeds.dtype is not None and embeds.shape is not None
        self._dtype, self._width = NUMPY_DTYPES[_NUMPY[embeds.dtype.name]], embeds.shape[2]
        self._random = np.random.default_rng(0)

    def step(
        self,
        name: str,
        rows: list[tuple[int, npt.NDArray[Any]]],
        keep: int = 0,
        new: int = 48,
        past: Feeds | None = None,
    ) -> Feeds:
        """A step whose rows have so much padding and these visual places; what a next one is given as its past."""
        valid, visual = np.ones((len(rows), new), np.int64), np.zeros((len(rows), new), bool)
        for row, (padding, places) in enumerate(rows):
            valid[row, :padding], visual[row, places] = 0, True
        text = int((valid.astype(bool) & ~visual).sum(axis=1).max())
        before = past["attention_mask"] if past else np.zeros((len(rows), 0), np.int64)
        mask = np.concatenate([before, valid], axis=1)
        position = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, before.shape[1] :]
        feeds = {
            "inputs_embeds": self._embeds(visual),
            "attention_mask": mask,
            "position_ids": position,
            "visual_mask": visual,
            "kept_length": np.array(min(new, keep + text) if visual.any() else new),
        }
        for cache, value in self._caches.items():
            assert value.shape is not None
            empty = (len(rows), value.shape[1], 0, value.shape[3])
            feeds[cache] = past[cache] if past else np.zeros(empty, self._dtype)
        self.cases[name] = feeds
        found = self._session.run(feeds, on_host=self._outputs)
        kept = np.take_along_axis(valid, found["kept_index"], axis=1)
        given = {cache: found[cache.replace("past_key_values", "present")] for cache in self._caches}
        return given | {"attention_mask": np.concatenate([before, kept], axis=1)}

    def _embeds(self, visual: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        """[B, T, D]; visual tokens are like some others, more and less, so that some are merged."""
        shape = (*visual.shape, self._width)
        centres = self._random.normal(size=(6, self._width))[self._random.integers(0, 6, visual.shape)]
        spread = self._random.uniform(0.1, 1.2, size=(*visual.shape, 1))
        embeds = self._random.normal(size=shape)
        return np.where(visual[..., None], centres + spread * embeds, embeds).astype(self._dtype)


def observe(
    model: onnx.ModelProto, form: Form, folder: Path, cases: Mapping[str, Feeds]
) -> dict[str, tuple[Seen, ...]]:
    """Every value by name, case by case; those of the branch that cuts as if they stood in the graph itself."""
    flat = Decoder(ir.from_proto(model), form)
    _flatten(flat)
    made = [value for value in flat.values() if value.producer() is not None]
    flat.graph.outputs.extend(value for value in made if not value.is_graph_output())
    session = StoredGraph(ir.to_proto(flat.model), folder).open()
    outputs = [str(value.name) for value in made]
    names = [*(str(value.name) for value in flat.required_inputs), *outputs]
    seen: dict[str, list[Seen]] = {name: [] for name in names}
    for feeds in cases.values():
        found = {**feeds, **session.run(feeds, on_host=outputs)}
        for name in names:
            seen[name].append(_seen(found[name]))
    return {name: tuple(values) for name, values in seen.items()}


def _seen(array: npt.NDArray[Any]) -> Seen:
    content = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()
    return Seen(array.dtype.name, array.shape, content)


def _flatten(decoder: Decoder) -> None:
    """Take the branch that cuts out of its If."""
    choice, branch = decoder.choice, decoder.cut
    if choice is None:
        return
    results = list(branch.outputs)
    nodes = list(branch)
    branch.outputs.clear()
    for node in nodes:
        branch.remove(node)
        node.name = f"{node.name}.in_branch"
    decoder.graph.extend(nodes)
    for old, new in zip(choice.outputs, results, strict=True):
        name = old.name
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        old.name, new.name = f"{name}.replaced", name if new.is_graph_output() else new.name
    decoder.graph.remove(choice, safe=True)
    decoder.graph.sort()
    decoder.choice, decoder.cut = None, decoder.graph
