"""What the PyTorch reference does with a case, kept in pieces that each graph can be given.

All of it is recorded before a graph is opened, so that the two never share memory. The reference computes in
float32; what one graph hands to another, or to its next call, is rounded to the graphs' dtype on the way, so both
sides are given the same numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asap_export.model.decoder import Cut, KeyValues
from asap_export.model.reference import Context, Generated, Prompt, Reference
from asap_export.parity.cases import Case, Question
from asap_export.pruning.topk import kept_length

__all__ = ["Array", "Recorded", "Recorder", "Step", "Turn", "to_array"]

Array = npt.NDArray[Any]

_DECODE_STEPS = 2  # after each prefill, fed with the reference's own tokens


@dataclass(frozen=True)
class Step:
    """One call of the decoder: its inputs by name in the graphs' dtype, the reference's outputs, and the cut,
    where there was one.

    inputs: all but the caches; visual: [B, T] bool; past, present: per layer [B, Hkv, P, d] in the graphs' dtype;
    logits: [B, 1, V] float32; kept_index: [B, K] int64.
    """

    inputs: dict[str, Tensor]
    visual: Tensor
    past: KeyValues
    logits: Tensor
    kept_index: Tensor
    present: KeyValues
    cut: Cut | None

    def feeds(self) -> dict[str, Array]:
        """The inputs of ``decoder.onnx`` for this step."""
        feeds = dict(self.inputs)
        for layer, (key, value) in enumerate(self.past):
            feeds |= {f"past_key_values.{layer}.key": key, f"past_key_values.{layer}.value": value}
        return {name: to_array(tensor) for name, tensor in feeds.items()}

    def expected(self) -> dict[str, Array]:
        """The outputs of ``decoder.onnx`` for this step."""
        outputs = {"logits": self.logits, "kept_index": self.kept_index}
        for layer, (key, value) in enumerate(self.present):
            outputs |= {f"present.{layer}.key": key, f"present.{layer}.value": value}
        return {name: to_array(tensor) for name, tensor in outputs.items()}


@dataclass(frozen=True)
class Turn:
    """A prompt, its visual tokens [N, D] in the graphs' dtype, and the decoder's steps: prefill, then tokens."""

    name: str
    prompt: Prompt
    features: Tensor
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Recorded:
    """A case, turn by turn; ``keep`` visual tokens survive in its first. ``answer`` continues an only turn."""

    case: Case
    keep: int
    turns: tuple[Turn, ...]
    answer: Generated | None


@dataclass
class Recorder:
    """Runs cases through the reference, as graphs of ``dtype`` are to run them.

    ``read`` makes the prompt of a turn (and is told whether it is the first), ``keep_for`` says how many visual
    tokens of a prompt survive.
    """

    reference: Reference
    dtype: torch.dtype
    read: Callable[[Sequence[Question], bool], Prompt]
    keep_for: Callable[[Prompt], int]
    eos_token_ids: tuple[int, ...]
    max_new_tokens: int
    _cut: Cut | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        def remember(cut: Cut) -> None:
            self._cut = cut

        self.reference.decoder.on_cut = remember

    @torch.no_grad()
    def record(self, case: Case) -> Recorded:
        """All turns of a case, and, where it has a single one, its greedy answer."""
        turns: list[Turn] = []
        answer: Generated | None = None
        keep = 0
        state = _State(self.reference.empty_context(len(case.turns[0])), [])
        state = state._replace(past=self._rounded(state.context.past))
        for number, questions in enumerate(case.turns):
            prompt = self.read(questions, number == 0)
            keep = case.keep or self.keep_for(prompt)
            features = self._features(prompt)
            embeds = self.reference.embedding(prompt.input_ids, features.float())
            visual = prompt.input_ids == self.reference.config.image_token_id
            step, state = self._step(embeds, prompt.attention_mask, visual, keep, state)
            if len(case.turns) == 1:
                answer = self._answer(step, state.context)
            steps = [step]
            for _ in range(_DECODE_STEPS):
                step, state = self._decode(step, state)
                steps.append(step)
            name = case.name if number == 0 else f"{case.name}, turn {number + 1}"
            turns.append(Turn(name, prompt, features, tuple(steps)))
        return Recorded(case, keep, tuple(turns), answer)

    def _features(self, prompt: Prompt) -> Tensor:
        """Visual tokens [N, D] of a prompt; N is 0 without images."""
        if prompt.pixel_values is None or prompt.gather_index is None:
            return torch.zeros(0, self.reference.config.text_config.hidden_size, dtype=self.dtype)
        pixels = prompt.pixel_values.to(self.dtype).float()
        features: Tensor = self.reference.vision(pixels, prompt.gather_index)
        return features.to(self.dtype)

    def _decode(self, step: Step, state: "_State") -> tuple[Step, "_State"]:
        """The greedy decode step after a step."""
        tokens = step.logits[:, 0].argmax(dim=-1, keepdim=True)
        embeds = self.reference.embedding.embed_tokens(tokens)
        return self._step(embeds, torch.ones_like(tokens), torch.zeros_like(tokens).bool(), 0, state)

    def _answer(self, step: Step, context: Context) -> Generated:
        return self.reference.continued(
            step.logits,
            context,
            self.max_new_tokens,
            eos_token_ids=self.eos_token_ids,
            suppress_tokens=(self.reference.config.image_token_id,),  # the runtime never writes one
        )

    def _step(
        self, embeds: Tensor, new_valid: Tensor, visual: Tensor, keep: int, before: "_State"
    ) -> tuple[Step, "_State"]:
        """embeds: [B, T, D]; new_valid: [B, T] int64; visual: [B, T] bool."""
        self._cut = None
        output, after = self.reference.advance(embeds, new_valid, visual, keep, before.context)
        present = self._rounded(output.present)
        inputs = self._inputs(embeds, new_valid, visual, keep, before.context)
        step = Step(inputs, visual, before.past, output.logits, output.kept_index, present, self._cut)
        given = [(key.float(), value.float()) for key, value in present]
        return step, _State(replace(after, past=given), present)

    def _inputs(
        self, embeds: Tensor, new_valid: Tensor, visual: Tensor, keep: int, before: Context
    ) -> dict[str, Tensor]:
        pruning = self.reference.pruning
        inputs: dict[str, Tensor] = {
            "inputs_embeds": embeds.to(self.dtype),
            "attention_mask": torch.cat([before.valid, new_valid], dim=1),
            "position_ids": (before.position + new_valid.cumsum(dim=1) - 1).clamp_min(0),
        }
        if pruning.prunes:
            length = kept_length(keep, visual, new_valid.bool())
            inputs |= {"visual_mask": visual, "kept_length": torch.tensor(length)}
        if pruning.prunes and not pruning.trim_early_kv:
            inputs["early_attention_mask"] = torch.cat([before.early_valid, new_valid], dim=1)
        return inputs

    def _rounded(self, caches: KeyValues) -> KeyValues:
        return [(key.to(self.dtype), value.to(self.dtype)) for key, value in caches]


class _State(NamedTuple):
    """Between two steps: what the reference knows, in float32, and the caches as the graphs are given them."""

    context: Context
    past: KeyValues


def to_array(tensor: Tensor) -> Array:
    """A tensor's values for a session; bfloat16, which NumPy does not know, by way of its bits."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    array: Array = np.ascontiguousarray(tensor.numpy())
    return array
