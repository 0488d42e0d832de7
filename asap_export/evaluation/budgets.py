"""Budgets as parts of a prompt's visual tokens, so that one budget fits images of every size."""

import math
from dataclasses import dataclass

from asap_export.errors import UserError
from asap_export.pruning.config import Budget

__all__ = ["NamedBudget", "parse_budgets"]

_FORMS = "22.2% (of the visual tokens, as the mean over all layers), keep=40 or keep=16.7% (after the cut)"


@dataclass(frozen=True)
class NamedBudget:
    """A budget as it was asked for; exactly one of the three is set.

    ``average``: the mean over all layers, those before the cut included, as a part of the prompt's visual
    tokens; ``ratio``: the part that is kept after the cut; ``keep``: the tokens that are.
    """

    label: str
    average: float | None = None
    ratio: float | None = None
    keep: int | None = None

    def keep_for(self, visual_tokens: int, layers: int, prune_after: int) -> int:
        """Tokens after the cut for a prompt of ``visual_tokens``: at least 1, at most all of them."""
        if self.average is None:
            return Budget(keep=self.keep, ratio=self.ratio).keep_for(visual_tokens, layers, prune_after)
        part = (self.average * layers - prune_after) / (layers - prune_after)
        return max(1, min(visual_tokens, round(part * visual_tokens)))

    def check(self, method: str, visual_tokens: int, layers: int, prune_after: int) -> None:
        """Raise UserError where no image reaches this budget, because the layers before the cut alone exceed it.

        ``visual_tokens``: the most that an image can have.
        """
        least = (prune_after + (layers - prune_after) / max(1, visual_tokens)) / layers
        if self.average is not None and self.average < least:
            raise UserError(
                f"expected a budget of at least {math.ceil(1000 * least) / 10:g}% for {method}, "
                f"found {self.label}: {prune_after} of {layers} layers see every visual token; "
                "raise it, or give keep=N"
            )


def parse_budgets(text: str) -> tuple[NamedBudget, ...]:
    """The budgets of a list like ``33.3%,22.2%,keep=40``. Raises UserError where one is none or named twice."""
    labels = [word.strip() for word in text.split(",") if word.strip()]
    if not labels:
        raise UserError(f"expected budgets like {_FORMS}, found none; give one")
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise UserError(f"expected each budget once, found {twice} twice; leave one out")
    return tuple(_budget(label) for label in labels)


def _budget(label: str) -> NamedBudget:
    value = label.removeprefix("keep=")
    try:
        if value.endswith("%"):
            part = float(value[:-1]) / 100
            if not 0 < part <= 1:
                raise ValueError
            return NamedBudget(label, ratio=part) if value != label else NamedBudget(label, average=part)
        if value == label or int(value) < 1:
            raise ValueError
        return NamedBudget(label, keep=int(value))
    except ValueError as error:
        raise UserError(f"expected a budget like {_FORMS}, found {label!r}; correct it") from error
