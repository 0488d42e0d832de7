"""Greedy answers of the PyTorch reference to all questions about an image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asap_export.evaluation.reading import Head, Integers, ReadPicture, Seen, asks_the_text, batches
from asap_export.model.anyres import TileGeometry, packing
from asap_export.model.reference import Context, Reference
from asap_export.pruning.config import PruningConfig
from asap_export.runtime.generate import left_padded
from asap_export.spec import ModelSpec

__all__ = ["TorchAnswers"]


class TorchAnswers:
    """A model with its weights, and what it says under any method and budget.

    What all questions share is computed once: the picture's features, and, where the choice of visual tokens
    does not hang on the question, the whole prompt up to the last visual token.
    """

    def __init__(self, llava: Any, spec: ModelSpec, max_new_tokens: int) -> None:
        self._llava, self._spec = llava, spec
        self._max_new_tokens = max_new_tokens
        self._geometry = TileGeometry.of(spec)

    @torch.inference_mode()
    def look(self, read: ReadPicture) -> Seen:
        """Run the vision encoder."""
        reference = self._reference(PruningConfig(method="none"))
        pixels = torch.from_numpy(read.pixel_values).to(reference.device, reference.dtype)
        index = torch.from_numpy(packing([read.size], self._geometry).gather_index).to(reference.device)
        return Seen(read, reference.vision(pixels, index))

    @torch.inference_mode()
    def answer(self, seen: Seen, pruning: PruningConfig, keep: int) -> list[list[int]]:
        """The new tokens of every question, the end token left out."""
        reference = self._reference(pruning)
        answers: dict[int, list[int]] = {}
        for head in seen.read.heads:
            for rows in batches(head, pruning):
                tokens = self._answer(reference, seen.features, head, rows, keep)
                answers |= zip(rows, tokens, strict=True)
        return [answers[row] for row in sorted(answers)]

    def _answer(
        self, reference: Reference, features: Tensor, head: Head, rows: Sequence[int], keep: int
    ) -> list[list[int]]:
        tails = [head.tails[row] for row in rows]
        if asks_the_text(
            reference.pruning
        ):  # rows of one length: a shorter one would keep more visual tokens
            prompts = [np.concatenate([head.ids, tail]) for tail in tails]
            logits, context = self._feed(
                reference, prompts, features, keep, reference.empty_context(len(rows))
            )
        else:
            _, context = self._feed(reference, [head.ids], features, keep, reference.empty_context(1))
            context = _repeated(context, len(rows))
            logits, context = self._feed(reference, tails, features[:0], 0, context)
        generated = reference.continued(
            logits,
            context,
            self._max_new_tokens,
            eos_token_ids=self._spec.eos_token_ids,
            suppress_tokens=(self._spec.image_token_id,),
        )
        return [self._until_end(row) for row in generated.tokens.tolist()]

    def _feed(
        self,
        reference: Reference,
        rows: Sequence[Integers],
        features: Tensor,
        keep: int,
        context: Context,
    ) -> tuple[Tensor, Context]:
        """The logits [B, 1, V] after new tokens, and what is then remembered."""
        padded, mask = left_padded(rows)
        ids = torch.from_numpy(padded).to(reference.device)
        valid = torch.from_numpy(mask).to(reference.device)
        embeds = reference.embedding(ids, features.repeat(len(rows), 1))
        visual = (ids == self._spec.image_token_id) & valid.bool() & bool(len(features))
        output, context = reference.advance(embeds, valid, visual, keep, context)
        return output.logits, context

    def _reference(self, pruning: PruningConfig) -> Reference:
        """All of them share the model's modules."""
        return Reference(self._llava, pruning)

    def _until_end(self, tokens: list[int]) -> list[int]:
        ends = (place for place, token in enumerate(tokens) if token in self._spec.eos_token_ids)
        return tokens[: next(ends, len(tokens))]


def _repeated(context: Context, rows: int) -> Context:
    """One row's context as that of several."""
    past = [(key.expand(rows, -1, -1, -1), value.expand(rows, -1, -1, -1)) for key, value in context.past]
    return Context(
        past,
        context.valid.expand(rows, -1),
        context.early_valid.expand(rows, -1),
        context.position.expand(rows, -1),
    )
