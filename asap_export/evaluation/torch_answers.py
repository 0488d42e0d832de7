"""Greedy answers of the PyTorch reference to all questions about an image."""

from typing import Any, NamedTuple

import torch

from asap_export.evaluation.reading import Head, Integers, ReadPicture, Seen
from asap_export.model.anyres import TileGeometry, packing
from asap_export.model.reference import Reference
from asap_export.model.shared import SharedHead, SharedTails
from asap_export.pruning.config import PruningConfig
from asap_export.runtime.generate import left_padded
from asap_export.spec import ModelSpec

__all__ = ["TorchAnswers"]


class _Asked(NamedTuple):
    """Questions by number, ready to be answered."""

    rows: list[int]
    tails: SharedTails


class TorchAnswers:
    """A model with its weights, and what it says under any method and budget.

    ``rows``: questions at once. What methods, budgets and questions share is computed once (``model/shared.py``).
    """

    def __init__(self, llava: Any, spec: ModelSpec, max_new_tokens: int, rows: int) -> None:
        self._llava, self._spec = llava, spec
        self._max_new_tokens, self._rows = max_new_tokens, rows
        self._geometry = TileGeometry.of(spec)
        self._dense = Reference(llava, PruningConfig(method="none"))

    @torch.no_grad()
    def look(self, read: ReadPicture) -> Seen:
        """Run the vision encoder, and embed all prompts."""
        pixels = torch.from_numpy(read.pixel_values).to(self._dense.device, self._dense.dtype)
        index = self._tensor(packing([read.size], self._geometry).gather_index)
        features = self._dense.vision(pixels, index)
        return Seen(read, [asked for head in read.heads for asked in self._asked(head, features)])

    @torch.no_grad()
    def answer(self, seen: Seen, pruning: PruningConfig, keep: int) -> list[list[int]]:
        """The new tokens of every question, the end token left out."""
        # In a step there is nothing to prune, so the dense model does it wherever caches have one length.
        reference = self._dense if pruning.trim_early_kv else Reference(self._llava, pruning)
        answers: dict[int, list[int]] = {}
        for asked in seen.features:
            logits, context = asked.tails.prefill(pruning, keep)
            generated = reference.continued(
                logits,
                context,
                self._max_new_tokens,
                eos_token_ids=self._spec.eos_token_ids,
                suppress_tokens=(self._spec.image_token_id,),
            )
            tokens = (self._until_end(row) for row in generated.tokens.tolist())
            answers |= zip(asked.rows, tokens, strict=True)
        return [answers[row] for row in sorted(answers)]

    def _asked(self, head: Head, features: torch.Tensor) -> list[_Asked]:
        """A head's questions in batches."""
        ids = self._tensor(head.ids)[None]
        embeds = self._dense.embedding(ids, features)
        shared = SharedHead(self._llava, embeds, ids == self._spec.image_token_id)
        asked = []
        numbers = list(head.tails)
        for first in range(0, len(numbers), self._rows):
            rows = numbers[first : first + self._rows]
            padded, valid = left_padded([head.tails[row] for row in rows])
            embeds = self._dense.embedding.embed_tokens(self._tensor(padded))
            asked.append(_Asked(rows, SharedTails(shared, embeds, self._tensor(valid))))
        return asked

    def _tensor(self, array: Integers) -> torch.Tensor:
        return torch.from_numpy(array).to(self._dense.device)

    def _until_end(self, tokens: list[int]) -> list[int]:
        ends = (place for place, token in enumerate(tokens) if token in self._spec.eos_token_ids)
        return tokens[: next(ends, len(tokens))]
