"""What a user asks for, and what comes back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypedDict

from asap_export.argument_types import check_types
from asap_export.bundle import GenerationInfo
from asap_export.errors import UserError
from asap_export.pruning.config import Budget
from asap_export.runtime.images import ImageSource, as_images, named

__all__ = ["GREEDY", "Answer", "Choosing", "Request", "Settings", "StoppedBy", "Timings"]

StoppedBy = Literal["end", "stop", "length"]

# Of each option its bounds, and what to say of a value beyond them.
_BOUNDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_new_tokens": (lambda value: value >= 1, "of at least 1, found {found}"),
    "min_new_tokens": (lambda value: value >= 0, "of 0 or more, found {found}"),
    "temperature": (lambda value: 0 <= value < float("inf"), "of 0 or more, found {found:g}; 0 is greedy"),
    "top_k": (lambda value: value >= 0, "of 0 or more, found {found}; 0 takes all tokens"),
    "top_p": (lambda value: 0 < value <= 1, "in (0, 1], found {found:g}; 1 takes all tokens"),
    "min_p": (lambda value: 0 <= value <= 1, "in [0, 1], found {found:g}; 0 takes all tokens"),
    "repetition_penalty": (lambda value: 0 < value < float("inf"), "above 0, found {found:g}; 1 is none"),
    "no_repeat_ngram_size": (lambda value: value >= 0, "of 0 or more, found {found}; 0 forbids nothing"),
    "stop": (all, "of at least one character each, found none in one"),
    "seed": (lambda value: value >= 0, "of 0 or more, found {found}"),
}


class Choosing(TypedDict, total=False):
    """How tokens are chosen: see ``Request``."""

    min_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    no_repeat_ngram_size: int | None
    stop: str | Sequence[str] | None
    seed: int


class Settings(Choosing, total=False):
    """What a question may bring along beside its length: see ``Request``."""

    keep: int | None
    keep_ratio: float | None
    budget: float | None


# The likeliest token each time and nothing else, whatever the bundle says: what is compared with a reference.
GREEDY: Choosing = {
    "min_new_tokens": 0,
    "temperature": 0.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "stop": (),
}


@dataclass(frozen=True, repr=False)
class Request:
    """One question about images: paths, PIL images, bytes of files, binary files, arrays [height, width, 3] of
    uint8 in RGB, or none.

    They come first in the prompt, or where ``<image>`` marks stand in it. From ``max_new_tokens`` to ``stop``,
    None takes what the bundle's checkpoint asks for (``GenerationInfo``). ``temperature`` 0 is greedy; above,
    tokens are drawn, the same ones for the same ``seed``: from the ``top_k`` likeliest (0: all), of those from the
    smallest set that holds ``top_p`` of the probability, and of those from the ones at least ``min_p`` times as
    likely as the likeliest. ``repetition_penalty`` above 1 makes tokens less likely that prompt or answer have
    already; no ``no_repeat_ngram_size`` tokens come twice in a row of both (0: they may). An answer ends with the
    first of the ``stop`` strings that it writes, which is left out of its text, or with an end token, but for the
    first ``min_new_tokens``.

    At most one of ``keep`` (visual tokens), ``keep_ratio`` and ``budget`` (layer average) replaces the bundle's
    own budget. ``template`` off takes the prompt as it is, with an ``<image>`` mark for each image.
    """

    images: Sequence[ImageSource]
    prompt: str
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    stop: str | Sequence[str] | None = None
    seed: int = 0
    keep: int | None = None
    keep_ratio: float | None = None
    budget: float | None = None
    template: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            found = type(self.prompt).__name__
            raise UserError(f"expected the prompt as text, found a value of type {found}; images come first")
        check_types(self, but=("images",))
        object.__setattr__(self, "images", as_images(self.images))
        if self.stop is not None:
            object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        for name, (fits, expected) in _BOUNDS.items():
            if (value := getattr(self, name)) is not None and not fits(value):
                option = name.replace("_", "-")
                raise UserError(f"expected --{option} {expected.format(found=value)}")
        self.own_budget()

    def __repr__(self) -> str:
        """As it could be written, images in a few words and defaults left out."""
        given = [f"[{', '.join(map(named, self.images))}]", repr(self.prompt)]
        for field in fields(self)[2:]:
            if (value := getattr(self, field.name)) != field.default:
                given.append(f"{field.name}={value!r}")
        return f"Request({', '.join(given)})"

    def generation(self, defaults: GenerationInfo) -> GenerationInfo:
        """How this request's tokens are chosen, in a bundle with these defaults."""
        names = (field.name for field in fields(GenerationInfo))
        return replace(defaults, **{n: v for n in names if (v := getattr(self, n, None)) is not None})

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
    ``stopped_by``: an "end" token, one of the "stop" strings, or the "length": ``max_new_tokens`` cut it short.
    """

    text: str
    token_ids: tuple[int, ...]
    visual_tokens: int
    kept_visual_tokens: int
    kept_index: tuple[int, ...]
    stopped_by: StoppedBy
    timings: Timings

    def __repr__(self) -> str:
        kept, visual = self.kept_visual_tokens, self.visual_tokens
        return f"Answer({self.text!r}, {len(self.token_ids)} tokens, {kept} of {visual} visual tokens kept)"
