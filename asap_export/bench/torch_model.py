"""transformers as a contender: its own pieces, dense, or the PyTorch reference that prunes."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache, StaticCache

from asap_export.bench.records import Contender
from asap_export.bench.staged import Inputs, Integers, some_token
from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.checkpoint.loading import load_model
from asap_export.errors import UserError
from asap_export.model.attention import Observer
from asap_export.model.reference import Context, Reference
from asap_export.parity.processor_reader import ProcessorReader
from asap_export.pruning.config import PruningConfig
from asap_export.runtime.prompt import PromptReader

__all__ = ["open_transformers"]

EAGER = "asap_export_eager"  # the name under which the reference's layers find `attend_eagerly`
_TINY = 16  # tokens; the run that touches every weight is shorter


def open_transformers(contender: Contender) -> "DenseModel | CompiledModel | PrunedModel":
    """The checkpoint of ``contender`` in float32 on the CPU, as it says. Raises UserError like
    ``open_checkpoint``."""
    checkpoint = open_checkpoint(Path(contender.source))
    llava = load_model(checkpoint, "fp32")
    reader = ProcessorReader(checkpoint.folder, checkpoint.spec)
    if contender.prunes:
        pruning = PruningConfig(**contender.pruning)  # type: ignore[arg-type]  # came as JSON from one
        return PrunedModel(llava, checkpoint.spec, reader, pruning, contender.attention)
    kind = CompiledModel if contender.compiled else DenseModel
    return kind(llava, checkpoint.spec, reader, contender.attention)


class _Held(NamedTuple):
    """Keys and values per layer, [1, Hkv, L, d]; never written to."""

    layers: list[tuple[Tensor, Tensor]]


class DenseModel:
    """A ``StagedModel`` of transformers' vision tower, embeddings, language model and head."""

    def __init__(self, llava: Any, spec: Any, reader: PromptReader, attention: str) -> None:
        llava.set_attn_implementation(attention)
        self.llava, self.spec, self.reader = llava, spec, reader

    @torch.inference_mode()
    def vision(self, inputs: Inputs) -> Tensor:
        config = self.llava.config
        if not len(inputs.gather_index):
            return torch.zeros(0, config.text_config.hidden_size)
        sizes = {"image_sizes": torch.tensor(inputs.image_sizes)} if self.spec.grid_pinpoints else {}
        found = self.llava.model.get_image_features(
            pixel_values=torch.from_numpy(inputs.pixel_values),
            vision_feature_layer=config.vision_feature_layer,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            **sizes,
        ).pooler_output
        return torch.cat([features.flatten(0, -2) for features in found])[: len(inputs.gather_index)]

    @torch.inference_mode()
    def embed(self, input_ids: Integers, features: Tensor) -> Tensor:
        ids = torch.from_numpy(input_ids)
        embeds: Tensor = self.llava.model.language_model.embed_tokens(ids)
        places = (ids == self.spec.image_token_id)[:, :, None].expand_as(embeds)
        return embeds.masked_scatter(places, features)

    @torch.inference_mode()
    def prefill(self, embeds: Tensor, visual_mask: npt.NDArray[np.bool_], keep: int, room: int) -> Any:
        cache: Any = DynamicCache()
        self._run(embeds, cache)
        return _Held([(layer.keys, layer.values) for layer in cache.layers])

    @torch.inference_mode()
    def decode(self, state: Any, steps: int) -> list[float]:
        cache: Any = DynamicCache()
        for number, (key, value) in enumerate(state.layers):
            cache.update(key, value, number)
        return _timed(lambda: self._run(self._token(), cache), steps)

    def kv_bytes(self, state: Any) -> tuple[int, int]:
        nbytes = sum(part.nbytes for layer in state.layers for part in layer)
        return nbytes, nbytes

    def cache_length(self, state: Any) -> int:
        return int(state.layers[0][0].shape[2])

    def _token(self) -> Tensor:
        embeds: Tensor = self.llava.model.language_model.embed_tokens(
            torch.full((1, 1), some_token(self.spec))
        )
        return embeds

    def _run(self, embeds: Tensor, cache: Any) -> Tensor:
        hidden = self.llava.model.language_model(
            inputs_embeds=embeds, past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits: Tensor = self.llava.lm_head(hidden[:, -1:])
        return logits


class CompiledModel(DenseModel):
    """The same with the language model through ``torch.compile``, every shape static.

    Its cache is transformers' static one, with room for the tokens to come. Compiled are prompts with images,
    and decoded tokens: neither what only fills a cache, nor the tiny run that touches every weight. A shape is
    compiled the first time that it runs: in a warm-up round, or in a decoded token that is not counted. Raises
    UserError where that fails, for instance for want of a C++ compiler."""

    def __init__(self, llava: Any, spec: Any, reader: PromptReader, attention: str) -> None:
        super().__init__(llava, spec, reader, attention)
        torch._dynamo.config.recompile_limit = 64  # a shape for each length is what is asked for
        self._compiled: Any = torch.compile(llava.model.language_model, dynamic=False)

    @torch.inference_mode()
    def prefill(self, embeds: Tensor, visual_mask: npt.NDArray[np.bool_], keep: int, room: int) -> Any:
        text = self.llava.config.text_config
        length = embeds.shape[1]
        cache: Any = StaticCache(config=text, max_cache_len=length + max(1, room))
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        cache.early_initialization(1, text.num_key_value_heads, head_dim, embeds.dtype, embeds.device)
        self._run(embeds, cache, compiled=length > _TINY and bool(visual_mask.any()))
        return cache, length

    @torch.inference_mode()
    def decode(self, state: Any, steps: int) -> list[float]:
        cache, length = state
        seconds = _timed(lambda: self._run(self._token(), cache, compiled=length > _TINY), steps)
        for layer in cache.layers:  # what lies behind is written over
            layer.cumulative_length.fill_(length)
        return seconds

    def kv_bytes(self, state: Any) -> tuple[int, int]:
        cache, length = state
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        return held // cache.layers[0].keys.shape[2] * length, held

    def cache_length(self, state: Any) -> int:
        return int(state[1])

    def _run(self, embeds: Tensor, cache: Any, compiled: bool = True) -> Tensor:
        if not compiled:
            return super()._run(embeds, cache)
        try:
            hidden = self._compiled(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
        except Exception as error:  # of TorchDynamo, of Inductor, or of the C++ compiler
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UserError(
                f"expected torch.compile to compile the language model, found: {reason}"
            ) from error
        logits: Tensor = self.llava.lm_head(hidden.last_hidden_state[:, -1:])
        return logits


class PrunedModel:
    """A ``StagedModel`` of the PyTorch reference, on transformers' own layers."""

    def __init__(
        self, llava: Any, spec: Any, reader: PromptReader, pruning: PruningConfig, attention: str
    ) -> None:
        self._reference = Reference(llava, pruning)
        if attention == "eager":
            llava.config.text_config._attn_implementation = EAGER
        self.spec, self.reader = spec, reader

    @torch.inference_mode()
    def vision(self, inputs: Inputs) -> Tensor:
        if not len(inputs.gather_index):
            return torch.zeros(0, self.spec.hidden_size)
        features: Tensor = self._reference.vision(
            torch.from_numpy(inputs.pixel_values), torch.from_numpy(inputs.gather_index)
        )
        return features

    @torch.inference_mode()
    def embed(self, input_ids: Integers, features: Tensor) -> Tensor:
        embeds: Tensor = self._reference.embedding(torch.from_numpy(input_ids), features)
        return embeds

    @torch.inference_mode()
    def prefill(self, embeds: Tensor, visual_mask: npt.NDArray[np.bool_], keep: int, room: int) -> Context:
        visual = torch.from_numpy(visual_mask)
        valid = torch.ones(visual.shape, dtype=torch.int64)
        return self._reference.advance(embeds, valid, visual, keep, self._reference.empty_context(1))[1]

    @torch.inference_mode()
    def decode(self, state: Context, steps: int) -> list[float]:
        context, token = state, torch.full((1, 1), some_token(self.spec))

        def step() -> None:
            nonlocal context
            _, context = self._reference.step(token, context)

        return _timed(step, steps)

    def kv_bytes(self, state: Context) -> tuple[int, int]:
        nbytes = sum(part.nbytes for layer in state.past for part in layer)
        return nbytes, nbytes

    def cache_length(self, state: Context) -> int:
        return max(int(key.shape[2]) for key, _ in state.past)


def attend_eagerly(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    observe: Observer | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """``model.attention.attend`` as plain products and a softmax, which is what "eager" means in transformers.

    query: [B, H, T, d]; key, value: [B, Hkv, P+T, d]; attention_mask: [B, 1, T, P+T], bool. Returns [B, T, H,
    d]."""
    groups = query.shape[1] // key.shape[1]
    wide_key, wide_value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    logits = query @ wide_key.transpose(2, 3) * scaling
    if observe is not None:
        logits = logits + observe(query, key, scaling).to(query.dtype)
    else:
        logits = logits.masked_fill(~attention_mask, torch.finfo(logits.dtype).min)
    weights = logits.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ wide_value).transpose(1, 2).contiguous(), None


AttentionInterface.register(EAGER, attend_eagerly)


def _timed(step: Callable[[], object], steps: int) -> list[float]:
    seconds = []
    for _ in range(steps):
        started = perf_counter()
        step()
        seconds.append(perf_counter() - started)
    return seconds
