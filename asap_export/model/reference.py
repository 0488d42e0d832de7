"""The PyTorch reference: LLaVA that prunes in prefill and then decodes with the short cache."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from asap_export.model.decoder import Decoder, DecoderOutput, KeyValues
from asap_export.model.embedding import TokenEmbedding
from asap_export.model.vision import VisionEncoder
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.cut import take_tokens
from asap_export.pruning.topk import kept_length

__all__ = ["Context", "Generated", "PromptBatch", "Reference"]


@dataclass(frozen=True)
class PromptBatch:
    """What one prefill is given; sequences of a batch are padded on the left.

    input_ids: [B, T] int64; attention_mask: [B, T] int64, 1 for valid tokens; pixel_values: [tiles, 3, h, w] and
    gather_index: [N] int64 of all images of the batch in order (``anyres.packing``), None without images.
    """

    input_ids: Tensor
    attention_mask: Tensor
    pixel_values: Tensor | None = None
    gather_index: Tensor | None = None


@dataclass
class Context:
    """What later tokens need to know of earlier ones: the cache, its masks, and how far positions have come.

    past: per layer [B, Hkv, P, d]; valid: [B, P] int64; early_valid: [B, P'] int64, of the layers before the cut
    where their caches are not trimmed; position: [B, 1] int64, valid tokens so far.
    """

    past: KeyValues
    valid: Tensor
    early_valid: Tensor
    position: Tensor


@dataclass
class Generated:
    """New tokens [B, n] int64, and the logits [B, V] each was chosen from."""

    tokens: Tensor
    logits: list[Tensor] = field(default_factory=list)


class Reference:
    """A checkpoint's model, eager, on transformers' own layers."""

    def __init__(self, llava: Any, pruning: PruningConfig) -> None:
        self.config = llava.config
        self.vision = VisionEncoder(llava)
        self.embedding = TokenEmbedding(llava)
        self.decoder = Decoder(llava, pruning)
        self.pruning = pruning
        self.dtype: torch.dtype = llava.dtype
        self.device: torch.device = llava.device

    def empty_context(self, batch: int) -> Context:
        """No tokens yet, for ``batch`` sequences."""
        text = self.config.text_config
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        nothing = torch.zeros(
            batch, text.num_key_value_heads, 0, head_dim, dtype=self.dtype, device=self.device
        )
        none_valid = torch.zeros(batch, 0, dtype=torch.int64, device=self.device)
        past = [(nothing, nothing) for _ in range(text.num_hidden_layers)]
        position = torch.zeros(batch, 1, dtype=torch.int64, device=self.device)
        return Context(past, none_valid, none_valid, position)

    @torch.no_grad()
    def prefill(
        self, prompt: PromptBatch, keep: int, context: Context | None = None
    ) -> tuple[DecoderOutput, Context]:
        """Run a prompt, or a further turn, through the model; ``keep`` of its visual tokens survive."""
        context = context or self.empty_context(prompt.input_ids.shape[0])
        width = self.config.text_config.hidden_size
        features = torch.zeros(0, width, dtype=self.dtype, device=self.device)
        if prompt.pixel_values is not None and prompt.gather_index is not None:
            features = self.vision(prompt.pixel_values.to(self.dtype), prompt.gather_index)
        embeds = self.embedding(prompt.input_ids, features)
        visual = (prompt.input_ids == self.config.image_token_id) & prompt.attention_mask.bool()
        return self.advance(embeds, prompt.attention_mask, visual, keep, context)

    @torch.no_grad()
    def advance(
        self, embeds: Tensor, new_valid: Tensor, visual: Tensor, keep: int, context: Context
    ) -> tuple[DecoderOutput, Context]:
        """Run new tokens through the decoder and remember what survives of them.

        embeds: [B, T, D]; new_valid: [B, T] int64; visual: [B, T] bool.
        """
        inputs = self.decoder_inputs(new_valid, visual, keep, context)
        output = self.decoder(embeds, past_key_values=context.past, **inputs)
        kept_valid = take_tokens(new_valid, output.kept_index)
        valid = torch.cat([context.valid, kept_valid], dim=1)
        trims = "early_attention_mask" not in inputs
        early_valid = valid if trims else torch.cat([context.early_valid, new_valid], dim=1)
        position = context.position + new_valid.sum(dim=1, keepdim=True)
        return output, Context(output.present, valid, early_valid, position)

    def decoder_inputs(
        self, new_valid: Tensor, visual: Tensor, keep: int, context: Context
    ) -> dict[str, Tensor]:
        """What the decoder is given beside embeddings and caches, by the names that ``decoder.onnx`` has for it.

        new_valid: [B, T] int64; visual: [B, T] bool.
        """
        inputs = {
            "attention_mask": _attended(context.valid, new_valid),
            "position_ids": (context.position + new_valid.cumsum(dim=1) - 1).clamp_min(0),
        }
        if self.pruning.prunes:
            length = kept_length(keep, visual, new_valid.bool())
            inputs |= {"visual_mask": visual, "kept_length": torch.tensor(length)}
        if self.pruning.prunes and not self.pruning.trim_early_kv:
            inputs["early_attention_mask"] = _attended(context.early_valid, new_valid)
        return inputs

    @torch.no_grad()
    def step(self, tokens: Tensor, context: Context) -> tuple[DecoderOutput, Context]:
        """Decode one token per sequence. tokens: [B, 1] int64."""
        embeds = self.embedding.embed_tokens(tokens)
        visual = torch.zeros_like(tokens, dtype=torch.bool)
        return self.advance(embeds, torch.ones_like(tokens), visual, 0, context)

    def generate(
        self,
        prompt: PromptBatch,
        keep: int,
        max_new_tokens: int,
        *,
        eos_token_ids: tuple[int, ...] = (),
        suppress_tokens: tuple[int, ...] = (),
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        context: Context | None = None,
    ) -> Generated:
        """Greedy (temperature 0) or sampled continuation; ends when every sequence has ended.

        ``suppress_tokens`` are never chosen.
        """
        output, context = self.prefill(prompt, keep, context)
        return self.continued(
            output.logits,
            context,
            max_new_tokens,
            eos_token_ids=eos_token_ids,
            suppress_tokens=suppress_tokens,
            choose=_chooser(temperature, top_p, seed),
        )

    @torch.no_grad()
    def continued(
        self,
        logits: Tensor,
        context: Context,
        max_new_tokens: int,
        *,
        eos_token_ids: tuple[int, ...] = (),
        suppress_tokens: tuple[int, ...] = (),
        choose: Callable[[Tensor], Tensor] | None = None,
    ) -> Generated:
        """What follows on a prefill's logits [B, 1, V]: greedy, unless ``choose`` takes tokens [B, 1] from logits
        [B, V]."""
        choose = choose or _chooser(0.0, 1.0, 0)
        rows = logits.shape[0]
        generated = Generated(torch.zeros(rows, 0, dtype=torch.int64, device=logits.device))
        ended = torch.zeros(rows, dtype=torch.bool, device=logits.device)
        eos = torch.tensor(eos_token_ids, dtype=torch.int64, device=logits.device)
        while True:
            last = logits[:, 0].float().clone()
            last[:, list(suppress_tokens)] = -torch.inf
            tokens = choose(last)
            generated.logits.append(last)
            generated.tokens = torch.cat([generated.tokens, tokens], dim=1)
            ended |= torch.isin(tokens[:, 0], eos)
            if generated.tokens.shape[1] == max_new_tokens or bool(ended.all()):
                return generated
            output, context = self.step(tokens, context)
            logits = output.logits


def _attended(valid: Tensor, new_valid: Tensor) -> Tensor:
    """The attention mask [B, P+T]; a row of padding alone, which nobody reads, attends to everything."""
    return torch.cat([valid, new_valid], dim=1).where(new_valid.bool().any(dim=1, keepdim=True), 1)


def _chooser(temperature: float, top_p: float, seed: int) -> Callable[[Tensor], Tensor]:
    """From logits [B, V] to the next tokens [B, 1]."""
    if temperature == 0:
        return lambda logits: logits.argmax(dim=-1, keepdim=True)
    generator = torch.Generator().manual_seed(seed)

    def sample(logits: Tensor) -> Tensor:
        probability, order = (logits / temperature).softmax(dim=-1).sort(dim=-1, descending=True)
        outside = probability.cumsum(dim=-1) - probability >= top_p  # the nucleus always holds the first
        chosen = torch.multinomial(probability.masked_fill(outside, 0.0), 1, generator=generator)
        return order.gather(1, chosen)

    return sample
