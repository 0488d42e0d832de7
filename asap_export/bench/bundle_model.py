"""A bundle as a contender: its graphs one by one, through the package's own runtime."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from asap_export.bench.staged import Inputs, Integers, some_token
from asap_export.runtime.cache import Cache
from asap_export.runtime.generate import kept_length
from asap_export.runtime.model import Model, load
from asap_export.runtime.openvino_session import Precision
from asap_export.runtime.prompt import PromptReader
from asap_export.runtime.providers import Provider
from asap_export.runtime.session import Tensor

__all__ = ["BundleModel", "open_bundle"]


def open_bundle(
    path: Path, threads: int, provider: Provider = "cpu", precision: Precision = "auto"
) -> "BundleModel":
    """A bundle's graphs in ONNX Runtime, OpenVINO or TensorRT. Raises UserError like ``asap_export.load``."""
    return BundleModel(load(path, provider, threads, precision))


class BundleModel:
    """A ``StagedModel``; see there."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.spec = model.spec
        self.reader: PromptReader = model.reader

    def vision(self, inputs: Inputs) -> Tensor:
        return self.model.graphs.image_features(inputs.pixel_values, inputs.gather_index)

    def embed(self, input_ids: Integers, features: Tensor) -> Tensor:
        return self.model.graphs.inputs_embeds(input_ids, features)

    def prefill(self, embeds: Tensor, visual_mask: npt.NDArray[np.bool_], keep: int, room: int) -> Cache:
        mask = np.ones(visual_mask.shape, np.int64)
        length = kept_length(keep, visual_mask, mask)
        graphs = self.model.graphs
        return graphs.step(embeds, mask, visual_mask, length, graphs.empty_cache(1)).cache

    def decode(self, state: Cache, steps: int) -> list[float]:
        graphs, seconds = self.model.graphs, []
        ids, mask, visual = (
            np.full((1, 1), some_token(self.spec)),
            np.ones((1, 1), np.int64),
            np.zeros((1, 1), bool),
        )
        for _ in range(steps):
            started = perf_counter()
            no_image = graphs.image_features(np.empty(0, np.float32), np.empty(0, np.int64))
            state = graphs.step(graphs.inputs_embeds(ids, no_image), mask, visual, 1, state).cache
            seconds.append(perf_counter() - started)
        return seconds

    def kv_bytes(self, state: Cache) -> tuple[int, int]:
        valid = held = 0
        buffered = state.buffers.arrays if state.buffers else {}
        for name, tensor in (*state.layers.items(), *buffered.items()):
            shape, nbytes = _size(tensor)
            early = state.early_mask is not None and self._is_early(name)
            mask = state.early_mask if early else state.mask
            assert mask is not None
            held += nbytes
            valid += nbytes // max(1, shape[2]) * int(mask.sum())
        return valid, held

    def cache_length(self, state: Cache) -> int:
        return state.length

    def _is_early(self, name: str) -> bool:
        return int(name.split(".")[1]) < self.model.bundle.manifest.pruning.prune_after


def _size(tensor: Any) -> tuple[Sequence[int], int]:
    """Shape and bytes of a numpy array, a tensor of PyTorch or an OrtValue."""
    if hasattr(tensor, "nbytes"):
        return tuple(tensor.shape), tensor.nbytes
    return tensor.shape(), tensor.tensor_size_in_bytes()
