"""Greedy answers of bundles in ONNX Runtime, on the CPU, to all questions about an image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from asap_export.bundle import Bundle
from asap_export.evaluation.reading import Head, ReadPicture, Seen
from asap_export.model.anyres import TileGeometry, packing
from asap_export.pruning.config import PruningConfig
from asap_export.runtime.cache import Cache, Integers
from asap_export.runtime.generate import generate
from asap_export.runtime.graphs import Graphs
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.prompt import Prompt
from asap_export.runtime.providers import cache_form, graph_file
from asap_export.runtime.request import GREEDY, Request
from asap_export.runtime.session import Sessions, Tensor

__all__ = ["OrtAnswers"]

_LOGITS = 1 << 30  # bytes of them in one layer, as float32


@dataclass(frozen=True)
class _SeenGraphs(Graphs):
    """A bundle's graphs for rows that all show one picture, whose features [N, D] are there already."""

    features: Tensor = None

    def image_features(self, pixel_values: object, gather_index: Integers) -> Tensor:
        if not len(gather_index):
            return super().image_features(np.empty(0, np.float32), gather_index)
        return np.tile(self.features, (len(gather_index) // len(self.features), 1))


class OrtAnswers:
    """Bundles of one checkpoint by their pruning; the first one's vision encoder and embeddings serve them all."""

    def __init__(self, bundles: Mapping[PruningConfig, Bundle], max_new_tokens: int) -> None:
        self._max_new_tokens = max_new_tokens
        first = next(iter(bundles.values()))
        vision, embedding = (
            OnnxRuntimeSession(first.graph_path(name)) for name in ("vision_encoder", "embed_tokens")
        )
        self._graphs = {}
        for pruning, bundle in bundles.items():
            decoder = OnnxRuntimeSession(graph_file(bundle, "decoder", "cpu"))
            self._graphs[pruning] = Graphs(
                bundle.manifest,
                Sessions(vision, embedding, decoder),
                bundle.manifest.dtype,
                caches=cache_form(bundle, "cpu"),
            )
        self._spec = first.manifest.model
        self._geometry = TileGeometry.of(self._spec)

    def look(self, read: ReadPicture) -> Seen:
        """Run the vision encoder."""
        graphs = next(iter(self._graphs.values()))
        features = graphs.image_features(
            read.pixel_values, packing([read.size], self._geometry).gather_index
        ).numpy()
        return Seen(read, features)

    def answer(self, seen: Seen, pruning: PruningConfig, keep: int) -> list[list[int]]:
        """The new tokens of every question, the end token left out."""
        plain = self._graphs[pruning]
        graphs = _SeenGraphs(
            plain.manifest, plain.sessions, plain.dtype, caches=plain.caches, features=seen.features
        )
        answers: dict[int, list[int]] = {}
        for head in seen.read.heads:
            if pruning.prunes:
                answers |= self._pruned(graphs, seen.read, head, keep)
            else:
                answers |= self._dense(graphs, seen.read, head)
        return [answers[row] for row in sorted(answers)]

    def _pruned(self, graphs: Graphs, read: ReadPicture, head: Head, keep: int) -> dict[int, list[int]]:
        """Whole prompts in batches of one length: a batch keeps one number of tokens, so a row with less text
        would keep more of the picture."""
        by_length: dict[int, list[int]] = {}
        for row, tail in head.tails.items():
            by_length.setdefault(len(tail), []).append(row)
        answers: dict[int, list[int]] = {}
        for rows in _portions(by_length, len(head.ids), self._spec.heads):
            whole = [np.concatenate([head.ids, head.tails[row]]) for row in rows]
            prompts = [Prompt(ids, _no_pixels(read), (read.size,)) for ids in whole]
            answers |= zip(rows, self._generated(graphs, prompts, keep), strict=True)
        return answers

    def _dense(self, graphs: Graphs, read: ReadPicture, head: Head) -> dict[int, list[int]]:
        """The head once, and the tails as a later turn of it: without a cut, that is the same."""
        cache = _repeated(self._fed(graphs, head, read), len(head.tails))
        prompts = [Prompt(tail, _no_pixels(read), ()) for tail in head.tails.values()]
        return dict(zip(head.tails, self._generated(graphs, prompts, read.visual_tokens, cache), strict=True))

    def _generated(
        self, graphs: Graphs, prompts: Sequence[Prompt], keep: int, cache: Cache | None = None
    ) -> list[list[int]]:
        requests = [Request((), "", self._max_new_tokens, keep=keep, **GREEDY)] * len(prompts)
        done = generate(graphs, prompts, requests, cache)
        ends = self._spec.eos_token_ids
        return [tokens[:-1] if tokens[-1] in ends else tokens for tokens in done.token_ids]

    def _fed(self, graphs: Graphs, head: Head, read: ReadPicture) -> Cache:
        """What the decoder remembers of the head, one row."""
        ids = head.ids[None]
        visual = ids == self._spec.image_token_id
        mask = np.ones_like(ids)
        embeds = graphs.inputs_embeds(ids, graphs.image_features(read.pixel_values, np.flatnonzero(visual)))
        return graphs.step(embeds, mask, visual, ids.shape[1], graphs.empty_cache(1)).cache


def _no_pixels(read: ReadPicture) -> npt.NDArray[np.float32]:
    """No tiles: the features are there already."""
    return np.empty((0, *read.pixel_values.shape[1:]), np.float32)


def _portions(by_length: Mapping[int, list[int]], head: int, heads: int) -> Iterator[list[int]]:
    """Rows of one length, as many at once as memory has room for the attention logits of a layer."""
    for tail, rows in by_length.items():
        most = max(1, _LOGITS // (4 * heads * (head + tail) ** 2))
        yield from (rows[first : first + most] for first in range(0, len(rows), most))


def _repeated(cache: Cache, rows: int) -> Cache:
    """One row's cache as that of several."""
    layers = {name: value.numpy() for name, value in cache.layers.items()}
    if cache.buffers is not None:
        layers |= cache.buffers.content(cache.mask.shape[1])
    return replace(
        cache,
        layers={name: np.repeat(value, rows, axis=0) for name, value in layers.items()},
        buffers=None,
        mask=np.repeat(cache.mask, rows, axis=0),
        fed=np.repeat(cache.fed, rows),
    )
