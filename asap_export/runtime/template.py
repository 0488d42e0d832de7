"""What a chat template writes around a question: put together from the manifest's parts, or rendered whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from asap_export.bundle import TemplateInfo, TurnParts
from asap_export.errors import UserError

__all__ = ["WRITE_IT_WHOLE", "ChatTemplate", "PartsTemplate", "Turn", "WholeTemplate", "put_together"]

# What helps where a template does not: the command and the argument, for other commands meet templates too.
WRITE_IT_WHOLE = "write the whole prompt yourself, by asap-export run --no-template (template=False)"

# Stands for the last answer when a conversation is rendered: a private-use character, so no user's word.
_ANSWER = "\ue000answer\ue000"

_PROBE = "\ue001"  # in a question's place: no template escapes it, or has another case of it

# Messages, as transformers has them, and add_generation_prompt to the text of the conversation.
Render = Callable[..., str]


@dataclass(frozen=True)
class Turn:
    """What a user said: text, the number of images with it, and the answer, once there is one."""

    text: str
    images: int
    answer: str = ""


class ChatTemplate(Protocol):
    """Texts with one mark for each image; ``images`` of a text that has no marks come first."""

    def first(self, text: str, images: int) -> str:
        """What the template makes of a first question. Raises UserError where there is no template."""
        ...

    def later(self, history: Sequence[Turn], text: str, images: int) -> str:
        """What it puts behind the last answer, that answer's end and the next question. Raises UserError where
        there is no template, or one without answers."""
        ...


@dataclass(frozen=True)
class PartsTemplate:
    """A template that has been taken apart; ``mark`` is that of an image."""

    info: TemplateInfo
    mark: str

    def first(self, text: str, images: int) -> str:
        return put_together(self.info.first, self.info.trims, text, images, self.mark)

    def later(self, history: Sequence[Turn], text: str, images: int) -> str:
        return put_together(self.info.later, self.info.trims, text, images, self.mark)


def put_together(parts: TurnParts, trims: bool, text: str, images: int, mark: str) -> str:
    """What a template writes for a turn, from its parts; ``mark`` is that of an image."""
    said = text.strip() if trims else text
    if images == 0 or mark in text:
        return f"{parts.start}{said}{parts.end}"
    return f"{parts.start}{parts.image * images}{parts.after_images}{said}{parts.end}"


@dataclass(frozen=True)
class WholeTemplate:
    """A template as it is: ``render`` runs it over messages; None stands for no template."""

    render: Render | None
    mark: str

    def first(self, text: str, images: int) -> str:
        return self._rendered([Turn(text, images)])

    def later(self, history: Sequence[Turn], text: str, images: int) -> str:
        turns = [*history[:-1], replace(history[-1], answer=_ANSWER), Turn(text, images)]
        _, found, rest = self._rendered(turns).partition(_ANSWER)
        if not found:
            raise UserError(
                "expected a chat template that repeats earlier answers, found one that drops them; "
                "ask each question by itself"
            )
        return rest

    def _rendered(self, turns: Sequence[Turn]) -> str:
        if self.render is None:
            raise UserError(f"expected a chat template in the bundle, found none; {WRITE_IT_WHOLE}")
        messages: list[dict[str, Any]] = []
        for turn in turns:
            parts = [] if self.mark in turn.text else [{"type": "image"}] * turn.images
            messages.append({"role": "user", "content": [*parts, {"type": "text", "text": turn.text}]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
        text = self.render(messages[:-1], add_generation_prompt=True)
        said = turns[-1].text.strip()
        if said not in text and _PROBE not in self._of_probe(messages[:-1]):
            raise UserError(
                f"expected a chat template that writes the question, found one that drops it; {WRITE_IT_WHOLE}"
            )
        if any(repr(message["content"]) in text for message in messages[:-1]):
            raise UserError(
                "expected a chat template that takes text and images, found one for text alone; "
                f"{WRITE_IT_WHOLE}"
            )
        return text

    def _of_probe(self, messages: list[dict[str, Any]]) -> str:
        """What becomes of the last question, where the template writes it in other characters."""
        assert self.render is not None
        asked = {"role": "user", "content": [{"type": "text", "text": _PROBE}]}
        return self.render([*messages[:-1], asked], add_generation_prompt=True)
