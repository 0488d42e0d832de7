"""transformers as a contender: its own pieces, dense, or the PyTorch reference, which prunes between layers."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import DynamicCache

from asap_export.bench.records import Contender
from asap_export.bench.staged import Inputs, Integers, some_token
from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.checkpoint.loading import load_model
from asap_export.model.reference import Context, Reference
from asap_export.parity.processor_reader import ProcessorReader
from asap_export.pruning.config import PruningConfig
from asap_export.runtime.prompt import PromptReader
from asap_export.spec import ModelSpec

__all__ = ["DenseModel", "PrunedModel", "open_transformers"]


def open_transformers(contender: Contender) -> "DenseModel | PrunedModel":
    """The checkpoint of ``contender``, in its dtype, on its device. Raises UserError like ``open_checkpoint``."""
    checkpoint = open_checkpoint(Path(contender.source))
    llava = load_model(checkpoint, contender.dtype)
    llava.to(torch.device("cpu" if contender.provider == "cpu" else "cuda"))
    reader = ProcessorReader(checkpoint.folder, checkpoint.spec)
    if not contender.prunes:
        return DenseModel(llava, checkpoint.spec, reader)
    pruning = PruningConfig(**contender.pruning)  # type: ignore[arg-type]  # came as JSON from one
    return PrunedModel(llava, checkpoint.spec, reader, pruning)


class _Peer:
    """What both have in common; every stage ends when the device has done its work."""

    def __init__(self, llava: Any, spec: ModelSpec, reader: PromptReader) -> None:
        self.llava, self.spec, self.reader = llava, spec, reader
        self.device: torch.device = llava.device

    def pixels(self, inputs: Inputs) -> Tensor:
        return torch.from_numpy(inputs.pixel_values).to(self.device, self.llava.dtype)

    def no_features(self) -> Tensor:
        return torch.zeros(0, self.spec.hidden_size, dtype=self.llava.dtype, device=self.device)

    def here(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def some_token(self) -> Tensor:
        return torch.full((1, 1), some_token(self.spec), device=self.device)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def timed(self, step: Callable[[], object], steps: int) -> list[float]:
        seconds = []
        for _ in range(steps):
            started = perf_counter()
            step()
            self.wait()
            seconds.append(perf_counter() - started)
        return seconds


class _Held(NamedTuple):
    """Keys and values per layer, [1, Hkv, L, d]; never written to."""

    layers: list[tuple[Tensor, Tensor]]


class DenseModel(_Peer):
    """A ``StagedModel`` of transformers' vision tower, embeddings, language model and head."""

    def __init__(self, llava: Any, spec: ModelSpec, reader: PromptReader) -> None:
        llava.set_attn_implementation("sdpa")
        super().__init__(llava, spec, reader)

    @torch.no_grad()
    def vision(self, inputs: Inputs) -> Tensor:
        config = self.llava.config
        if not len(inputs.gather_index):
            return self.no_features()
        sizes = {"image_sizes": torch.tensor(inputs.image_sizes)} if self.spec.grid_pinpoints else {}
        found = self.llava.model.get_image_features(
            pixel_values=self.pixels(inputs),
            vision_feature_layer=config.vision_feature_layer,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            **sizes,
        ).pooler_output
        features = torch.cat([features.flatten(0, -2) for features in found])[: len(inputs.gather_index)]
        self.wait()
        return features

    @torch.no_grad()
    def embed(self, input_ids: Integers, features: Tensor) -> Tensor:
        ids = self.here(input_ids)
        embeds: Tensor = self.llava.model.language_model.embed_tokens(ids)
        places = (ids == self.spec.image_token_id)[:, :, None].expand_as(embeds)
        embeds = embeds.masked_scatter(places, features)
        self.wait()
        return embeds

    @torch.no_grad()
    def prefill(self, embeds: Tensor, visual_mask: npt.NDArray[np.bool_], keep: int, room: int) -> _Held:
        cache: Any = DynamicCache()
        self._run(embeds, cache)
        self.wait()
        return _Held([(layer.keys, layer.values) for layer in cache.layers])

    @torch.no_grad()
    def decode(self, state: _Held, steps: int) -> list[float]:
        cache: Any = DynamicCache()
        for number, (key, value) in enumerate(state.layers):
            cache.update(key, value, number)
        embed = self.llava.model.language_model.embed_tokens
        return self.timed(lambda: self._run(embed(self.some_token()), cache), steps)

    def kv_bytes(self, state: _Held) -> tuple[int, int]:
        nbytes = sum(part.nbytes for layer in state.layers for part in layer)
        return nbytes, nbytes

    def cache_length(self, state: _Held) -> int:
        return int(state.layers[0][0].shape[2])

    def _run(self, embeds: Tensor, cache: Any) -> Tensor:
        hidden = self.llava.model.language_model(
            inputs_embeds=embeds, past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits: Tensor = self.llava.lm_head(hidden[:, -1:])
        return logits


class PrunedModel(_Peer):
    """A ``StagedModel`` of the PyTorch reference, whose layers are transformers' own."""

    def __init__(self, llava: Any, spec: ModelSpec, reader: PromptReader, pruning: PruningConfig) -> None:
        super().__init__(llava, spec, reader)
        self._reference = Reference(llava, pruning)

    @torch.no_grad()
    def vision(self, inputs: Inputs) -> Tensor:
        if not len(inputs.gather_index):
            return self.no_features()
        features: Tensor = self._reference.vision(self.pixels(inputs), self.here(inputs.gather_index))
        self.wait()
        return features

    @torch.no_grad()
    def embed(self, input_ids: Integers, features: Tensor) -> Tensor:
        embeds: Tensor = self._reference.embedding(self.here(input_ids), features)
        self.wait()
        return embeds

    def prefill(self, embeds: Tensor, visual_mask: npt.NDArray[np.bool_], keep: int, room: int) -> Context:
        visual = self.here(visual_mask)
        valid = torch.ones(visual.shape, dtype=torch.int64, device=self.device)
        context = self._reference.advance(embeds, valid, visual, keep, self._reference.empty_context(1))[1]
        self.wait()
        return context

    def decode(self, state: Context, steps: int) -> list[float]:
        context = state

        def step() -> None:
            nonlocal context
            _, context = self._reference.step(self.some_token(), context)

        return self.timed(step, steps)

    def kv_bytes(self, state: Context) -> tuple[int, int]:
        nbytes = sum(part.nbytes for layer in state.past for part in layer)
        return nbytes, nbytes

    def cache_length(self, state: Context) -> int:
        return max(int(key.shape[2]) for key, _ in state.past)
