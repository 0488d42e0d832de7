"""Rows that are fed one token each at every step, join and leave at any step, and are of lengths of their own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from asap_export.bundle import Manifest
from asap_export.errors import UserError
from asap_export.memory import available_memory, gigabytes
from asap_export.runtime.cache import Array, Cache, CacheForm, present_name
from asap_export.runtime.generate import decode
from asap_export.runtime.graphs import Graphs

__all__ = ["Row", "Rows", "RowsAtOnce", "RowsInTurn", "open_rows", "takes_rows_at_once"]

_FILLED = "filled_places"
_MEMORY_PART = 0.5  # of what is free, for the caches of all rows

Logits = npt.NDArray[np.float32]


@dataclass(eq=False)
class Row:
    """A sequence that is being answered.

    ``filled``: places of its caches; ``fed``: tokens ever fed, the next position; ``slot``: its place among the
    rows; ``cache`` where it has one of its own.
    """

    slot: int
    filled: int
    fed: int
    cache: Cache | None = field(default=None, repr=False)


class Rows(Protocol):
    """Up to ``most`` rows."""

    most: int

    @property
    def places(self) -> int | None:
        """Of each row; None where there is no limit but the model's own."""
        ...

    @property
    def memory(self) -> int:
        """Bytes that the caches of all rows have; 0 where each takes what it needs."""
        ...

    def add(self, cache: Cache) -> Row:
        """A row that goes on from the cache of a prompt of one row, which is given up to it."""
        ...

    def step(self, rows: Sequence[Row], last: Sequence[int]) -> Logits:
        """Feed each of these rows the token that it wrote last: logits [n, V] float32."""
        ...

    def drop(self, row: Row) -> None:
        """Let a row go."""
        ...


class RowsInTurn:
    """Rows one after the other, for decoders whose rows have to be of one length."""

    def __init__(self, graphs: Graphs, most: int) -> None:
        self.most = most
        self._graphs = graphs

    @property
    def places(self) -> int | None:
        return None

    @property
    def memory(self) -> int:
        return 0

    def add(self, cache: Cache) -> Row:
        return Row(0, cache.length, int(cache.fed[0]), cache)

    def step(self, rows: Sequence[Row], last: Sequence[int]) -> Logits:
        logits = []
        for row, token in zip(rows, last, strict=True):
            assert row.cache is not None
            step = decode(self._graphs, [token], np.ones(1, bool), row.cache)
            row.cache = step.cache
            logits.append(step.logits)
        return np.concatenate(logits)

    def drop(self, row: Row) -> None:
        row.cache = None


class RowsAtOnce:
    """Rows in one run of the decoder for the CPU, whose attention takes a length for each.

    Their caches are buffers [most, Hkv, places, d], one for each of the decoder's inputs. The first rows of them
    are taken: where one leaves in between, the last one moves there.
    """

    def __init__(self, graphs: Graphs, most: int, places: int) -> None:
        self.most, self._places = most, places
        self._graphs = graphs
        model = graphs.manifest.model
        shape = most, model.kv_heads, places, model.head_dim
        self._buffers = {name: np.zeros(shape, graphs.numpy_dtype) for name in graphs.caches.growing}
        self._rows: list[Row] = []

    @property
    def places(self) -> int | None:
        return self._places

    @property
    def memory(self) -> int:
        return sum(array.nbytes for array in self._buffers.values())

    def add(self, cache: Cache) -> Row:
        slot = len(self._rows)
        row = Row(slot, cache.length, int(cache.fed[0]))
        for name, array in self._content(cache).items():
            self._buffers[name][slot, :, : array.shape[2]] = array[0]
        self._rows.append(row)
        return row

    def step(self, rows: Sequence[Row], last: Sequence[int]) -> Logits:
        graphs, count = self._graphs, len(self._rows)
        tokens = np.zeros((count, 1), np.int64)
        for row, token in zip(rows, last, strict=True):
            tokens[row.slot] = token
        buffers = {name: array[:count] for name, array in self._buffers.items()}
        filled = [row.filled for row in self._rows]
        inputs = {
            "inputs_embeds": graphs.inputs_embeds(
                tokens, graphs.image_features(np.empty(0, np.float32), np.empty(0, np.int64))
            ),
            "attention_mask": np.ones((count, max(filled) + 1), np.int64),
            "position_ids": np.array([[row.fed] for row in self._rows], np.int64),
            _FILLED: np.array(filled, np.int64),
            **buffers,
        }
        if graphs.manifest.pruning.prunes:
            inputs |= {"visual_mask": np.zeros((count, 1), bool), "kept_length": np.array(1, np.int64)}
        into = {present_name(name): array for name, array in buffers.items()}
        outputs = graphs.sessions.decoder.run(inputs, ("logits",), into)
        logits: Logits = outputs["logits"][:, -1].astype(np.float32)
        for row in self._rows:
            row.filled, row.fed = row.filled + 1, row.fed + 1
        return logits[[row.slot for row in rows]]

    def drop(self, row: Row) -> None:
        last = self._rows.pop()
        if last is row:
            return
        for array in self._buffers.values():
            array[row.slot, :, : last.filled] = array[last.slot, :, : last.filled]
        last.slot = row.slot
        self._rows[row.slot] = last

    def _content(self, cache: Cache) -> dict[str, Array]:
        """Of each buffer what a cache has filled."""
        buffered = cache.buffers.arrays if cache.buffers is not None else {}
        length = cache.mask.shape[1]
        content = {name: array[:, :, :length] for name, array in buffered.items()}
        return content | {name: np.asarray(cache.layers[name]) for name in cache.layers}


def takes_rows_at_once(manifest: Manifest, caches: CacheForm) -> bool:
    """Whether a decoder takes rows of lengths of their own: the one for the CPU, all of whose caches may grow, and
    which asks how much of them is filled."""
    decoder = manifest.cpu_decoder
    asks = decoder is not None and any(tensor.name == _FILLED for tensor in decoder.inputs)
    return asks and len(caches.growing) == 2 * manifest.model.layers


def open_rows(graphs: Graphs, most: int, places: int | None = None) -> Rows:
    """Rows for a model's graphs: at once where its decoder takes that, else in turn.

    ``places`` of each row, by default the model's positions, as far as half of the free memory holds them. Raises
    UserError where memory holds not even a short prompt in each row.
    """
    if not takes_rows_at_once(graphs.manifest, graphs.caches):
        return RowsInTurn(graphs, most)
    model = graphs.manifest.model
    of_a_place = 2 * model.layers * model.kv_heads * model.head_dim * graphs.numpy_dtype.itemsize
    fit = int(available_memory() * _MEMORY_PART) // (most * of_a_place)
    wanted = places or min(model.max_position_embeddings, fit)
    if wanted > fit or wanted < 1:
        needed = gigabytes(most * of_a_place * max(wanted, 1))
        raise UserError(
            f"expected {needed} of memory for the caches of {most} rows of {max(wanted, 1):,} places, found "
            f"{gigabytes(int(available_memory() * _MEMORY_PART))}; lower --rows or --places"
        )
    return RowsAtOnce(graphs, most, wanted)
