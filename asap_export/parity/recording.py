"""What the PyTorch reference does with a case, in pieces that each graph can be given."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asap_export.model.decoder import Cut, DecoderOutput
from asap_export.model.reference import Context, Prompt, Reference
from asap_export.pruning.topk import kept_length

__all__ = ["Array", "Recording", "Step", "to_array"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Step:
    """One call of the decoder: its inputs, the reference's outputs, and the cut, where there was one.

    embeds: [B, T, D]; new_valid: [B, T] int64; visual: [B, T] bool.
    """

    embeds: Tensor
    new_valid: Tensor
    visual: Tensor
    kept_length: int
    before: Context
    output: DecoderOutput
    after: Context
    cut: Cut | None

    def feeds(self, reference: Reference) -> dict[str, Array]:
        """The inputs of ``decoder.onnx`` for this step."""
        pruning = reference.pruning
        feeds: dict[str, Tensor] = {
            "inputs_embeds": self.embeds,
            "attention_mask": torch.cat([self.before.valid, self.new_valid], dim=1),
            "position_ids": (self.before.position + self.new_valid.cumsum(dim=1) - 1).clamp_min(0),
        }
        if pruning.prunes:
            feeds |= {"visual_mask": self.visual, "kept_length": torch.tensor(self.kept_length)}
        if pruning.prunes and not pruning.trim_early_kv:
            feeds["early_attention_mask"] = torch.cat([self.before.early_valid, self.new_valid], dim=1)
        for layer, (key, value) in enumerate(self.before.past):
            feeds |= {f"past_key_values.{layer}.key": key, f"past_key_values.{layer}.value": value}
        return {name: to_array(tensor) for name, tensor in feeds.items()}

    def expected(self) -> dict[str, Array]:
        """The outputs of ``decoder.onnx`` for this step."""
        outputs = {"logits": self.output.logits, "kept_index": self.output.kept_index}
        for layer, (key, value) in enumerate(self.output.present):
            outputs |= {f"present.{layer}.key": key, f"present.{layer}.value": value}
        return {name: to_array(tensor) for name, tensor in outputs.items()}


class Recording:
    """The reference, with a memory of its last cut."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._cut: Cut | None = None

        def remember(cut: Cut) -> None:
            self._cut = cut

        reference.decoder.on_cut = remember

    @torch.no_grad()
    def features(self, prompt: Prompt) -> Tensor:
        """Visual tokens [N, D] of a prompt; N is 0 without images."""
        if prompt.pixel_values is None or prompt.gather_index is None:
            return torch.zeros(0, self.reference.config.text_config.hidden_size, dtype=self.reference.dtype)
        pixels = prompt.pixel_values.to(self.reference.dtype)
        features: Tensor = self.reference.vision(pixels, prompt.gather_index)
        return features

    @torch.no_grad()
    def prefill(self, prompt: Prompt, features: Tensor, keep: int, before: Context) -> Step:
        """A prompt through embedding and decoder."""
        embeds = self.reference.embedding(prompt.input_ids, features)
        visual = prompt.input_ids == self.reference.config.image_token_id
        return self._step(embeds, prompt.attention_mask, visual, keep, before)

    @torch.no_grad()
    def decode(self, step: Step, count: int) -> Iterator[Step]:
        """The greedy decode steps after a step."""
        for _ in range(count):
            tokens = step.output.logits[:, 0].argmax(dim=-1, keepdim=True)
            embeds = self.reference.embedding.embed_tokens(tokens)
            step = self._step(embeds, torch.ones_like(tokens), torch.zeros_like(tokens).bool(), 0, step.after)
            yield step

    def _step(self, embeds: Tensor, new_valid: Tensor, visual: Tensor, keep: int, before: Context) -> Step:
        self._cut = None
        output, after = self.reference.advance(embeds, new_valid, visual, keep, before)
        length = kept_length(keep, visual, new_valid.bool())
        return Step(embeds, new_valid, visual, length, before, output, after, self._cut)


def to_array(tensor: Tensor) -> Array:
    """A tensor's values for a session; bfloat16, which NumPy does not know, by way of its bits."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    array: Array = np.ascontiguousarray(tensor.numpy())
    return array
