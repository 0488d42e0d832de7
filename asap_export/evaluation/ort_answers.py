"""Greedy answers of bundles in ONNX Runtime, on the CPU, to all questions about an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asap_export.bundle import Bundle
from asap_export.evaluation.reading import Head, ReadPicture, Seen, batches
from asap_export.model.anyres import TileGeometry, packing
from asap_export.model.shared import asks_the_text
from asap_export.pruning.config import PruningConfig
from asap_export.runtime.cache import Cache, Integers
from asap_export.runtime.generate import generate, kept_length
from asap_export.runtime.graphs import Graphs
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.prompt import Prompt
from asap_export.runtime.request import Request
from asap_export.runtime.session import Sessions, Tensor

__all__ = ["OrtAnswers"]


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
            sessions = Sessions(vision, embedding, OnnxRuntimeSession(bundle.graph_path("decoder")))
            self._graphs[pruning] = Graphs(bundle.manifest, sessions, bundle.manifest.dtype)
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
        graphs = _SeenGraphs(plain.manifest, plain.sessions, plain.dtype, seen.features)
        answers: dict[int, list[int]] = {}
        for head in seen.read.heads:
            for rows in batches(head, pruning):
                answers |= zip(rows, self._answer(graphs, seen.read, head, rows, keep), strict=True)
        return [answers[row] for row in sorted(answers)]

    def _answer(
        self, graphs: Graphs, read: ReadPicture, head: Head, rows: Sequence[int], keep: int
    ) -> list[list[int]]:
        tails = [head.tails[row] for row in rows]
        requests = [Request("", max_new_tokens=self._max_new_tokens, keep=keep)] * len(rows)
        if asks_the_text(graphs.manifest.pruning):
            nothing = np.empty((0, *read.pixel_values.shape[1:]), np.float32)  # the features are there
            prompts = [Prompt(np.concatenate([head.ids, tail]), nothing, (read.size,)) for tail in tails]
            done = generate(graphs, prompts, requests)
        else:
            cache = _repeated(self._fed(graphs, head, read, keep), len(rows))
            nothing = np.empty((0, *read.pixel_values.shape[1:]), np.float32)
            done = generate(graphs, [Prompt(tail, nothing, ()) for tail in tails], requests, cache)
        ends = self._spec.eos_token_ids
        return [tokens[:-1] if tokens[-1] in ends else tokens for tokens in done.token_ids]

    def _fed(self, graphs: Graphs, head: Head, read: ReadPicture, keep: int) -> Cache:
        """What the decoder remembers of the head, one row."""
        ids = head.ids[None]
        visual = ids == self._spec.image_token_id
        mask = np.ones_like(ids)
        embeds = graphs.inputs_embeds(ids, graphs.image_features(read.pixel_values, np.flatnonzero(visual)))
        length = kept_length(keep, visual, mask)
        return graphs.step(embeds, mask, visual, length, graphs.empty_cache(1)).cache


def _repeated(cache: Cache, rows: int) -> Cache:
    """One row's cache as that of several."""
    early = cache.early_mask
    return replace(
        cache,
        layers={name: np.repeat(value.numpy(), rows, axis=0) for name, value in cache.layers.items()},
        mask=np.repeat(cache.mask, rows, axis=0),
        early_mask=None if early is None else np.repeat(early, rows, axis=0),
        fed=np.repeat(cache.fed, rows),
    )
