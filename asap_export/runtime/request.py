"""What a user asks for, and what comes back."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypedDict

from asap_export.errors import UserError
from asap_export.pruning.config import Budget
from asap_export.runtime.images import ImageSource, as_images, named

__all__ = ["Answer", "Request", "Settings", "Timings"]


class Settings(TypedDict, total=False):
    """What a question may bring along beside its length: see ``Request``."""

    temperature: float
    top_p: float
    seed: int
    keep: int | None
    keep_ratio: float | None
    budget: float | None


@dataclass(frozen=True, repr=False)
class Request:
    """One question about images: paths, PIL images, bytes of files, binary files, arrays [height, width, 3] of
    uint8 in RGB, or none.

    They come first in the prompt, or where ``<image>`` marks stand in it. ``temperature`` 0 is greedy; above,
    tokens are drawn from the smallest set that holds ``top_p`` of the probability, the same ones for the same
    ``seed``. At most one of ``keep`` (visual tokens), ``keep_ratio`` and ``budget`` (layer average) replaces the
    bundle's own budget. ``template`` off takes the prompt as it is, with an ``<image>`` mark for each image.
    """

    images: Sequence[ImageSource]
    prompt: str
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    keep: int | None = None
    keep_ratio: float | None = None
    budget: float | None = None
    template: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            found = type(self.prompt).__name__
            raise UserError(f"expected the prompt as text, found a value of type {found}; images come first")
        object.__setattr__(self, "images", as_images(self.images))
        if self.max_new_tokens < 1:
            raise UserError(f"expected --max-new-tokens of at least 1, found {self.max_new_tokens}")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"expected --temperature of 0 or more, found {self.temperature:g}; 0 is greedy")
        if not 0 < self.top_p <= 1:
            raise UserError(f"expected --top-p in (0, 1], found {self.top_p:g}; 1 takes all tokens")
        if self.seed < 0:
            raise UserError(f"expected --seed of 0 or more, found {self.seed}")
        self.own_budget()

    def __repr__(self) -> str:
        """As it could be written, images in a few words and defaults left out."""
        given = [f"[{', '.join(map(named, self.images))}]", repr(self.prompt)]
        for field in fields(self)[2:]:
            if (value := getattr(self, field.name)) != field.default:
                given.append(f"{field.name}={value!r}")
        return f"Request({', '.join(given)})"

    def own_budget(self) -> Budget | None:
        """The budget that this request brings along. Raises UserError where it is none or there are two."""
        if (self.keep, self.keep_ratio, self.budget) == (None, None, None):
            return None
        return Budget(self.keep, self.keep_ratio, self.budget)


@dataclass(frozen=True)
class Timings:
    """Seconds. In a batch all answers share them, but for ``preprocess``, which is the whole batch's too."""

    preprocess: float  # images and text, on the host
    vision: float
    embed: float
    prefill: float
    decode: tuple[float, ...]  # of each token after the first

    @property
    def first_token(self) -> float:
        """From the question to the first token."""
        return self.preprocess + self.vision + self.embed + self.prefill

    @property
    def decode_per_token(self) -> float:
        """Mean of ``decode``; 0 where the prefill's token was the only one."""
        return sum(self.decode) / len(self.decode) if self.decode else 0.0


@dataclass(frozen=True, repr=False)
class Answer:
    """The text without special tokens, and ``token_ids`` as sampled, the end token included.

    ``visual_tokens`` of the images, ``kept_visual_tokens`` of them after the cut: equal where nothing was
    pruned. ``kept_index``: ascending places in the new tokens of this turn, text included, of those that are left.
    ``stopped_by`` "length" says that ``max_new_tokens`` cut the answer short.
    """

    text: str
    token_ids: tuple[int, ...]
    visual_tokens: int
    kept_visual_tokens: int
    kept_index: tuple[int, ...]
    stopped_by: Literal["end", "length"]
    timings: Timings

    def __repr__(self) -> str:
        kept, visual = self.kept_visual_tokens, self.visual_tokens
        return f"Answer({self.text!r}, {len(self.token_ids)} tokens, {kept} of {visual} visual tokens kept)"
