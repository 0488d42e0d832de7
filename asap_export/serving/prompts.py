"""From the messages of a request to the prompt that a bundle's template makes of them."""

from collections.abc import Sequence

from asap_export.bundle import Bundle
from asap_export.errors import UserError
from asap_export.runtime.jinja import jinja_renderer
from asap_export.runtime.prompt import PromptReader
from asap_export.runtime.template import Render, Turn
from asap_export.serving.schema import ImagePart, Message

__all__ = ["Prompts", "image_urls"]


class Prompts:
    """Writes conversations as a bundle's chat template does, system prompts where it has any."""

    def __init__(self, bundle: Bundle, reader: PromptReader) -> None:
        self._reader = reader
        path = bundle.chat_template_path
        self._render: Render | None = None if path is None else jinja_renderer(path.read_text("utf-8"))

    def written(self, messages: Sequence[Message]) -> str:
        """The whole prompt, with a mark for each image. Raises UserError for an order of roles or contents that it
        cannot be."""
        system, said = _split(messages)
        turns = [self._turn(asked, answer) for asked, answer in said]
        if system:
            return self._with_system(system, turns)
        template = self._reader.template
        prompt = template.first(turns[0].text, turns[0].images)
        for number in range(1, len(turns)):
            before, turn = turns[:number], turns[number]
            prompt += before[-1].answer + template.later(before, turn.text, turn.images)
        return prompt

    def _turn(self, asked: Message, answer: Message | None) -> Turn:
        text, images = self._text(asked)
        return Turn(text, images, self._text(answer)[0] if answer is not None else "")

    def _text(self, message: Message) -> tuple[str, int]:
        """With marks where images stand between words; those in front of all words the template puts there."""
        mark = self._reader.image_token
        parts = [] if isinstance(message.content, str) else message.content
        kinds = [isinstance(part, ImagePart) for part in parts]
        if mark in _words(message):
            raise UserError(
                f"expected images as parts of a message, found the mark {mark} in its text; leave it out"
            )
        if kinds == sorted(kinds, reverse=True):
            return _words(message), sum(kinds)
        return "".join(mark if isinstance(part, ImagePart) else part.text for part in parts), sum(kinds)

    def _with_system(self, system: str, turns: Sequence[Turn]) -> str:
        rendered = (
            ""
            if self._render is None
            else self._render(self._messages(system, turns), add_generation_prompt=True)
        )
        if system.strip() not in rendered:
            raise UserError(
                "expected a chat template with system messages, found one without; put it into the first question"
            )
        return rendered

    def _messages(self, system: str, turns: Sequence[Turn]) -> list[dict[str, object]]:
        messages: list[dict[str, object]] = [
            {"role": "system", "content": [{"type": "text", "text": system}]}
        ]
        for turn in turns:
            parts = [] if self._reader.image_token in turn.text else [{"type": "image"}] * turn.images
            messages.append({"role": "user", "content": [*parts, {"type": "text", "text": turn.text}]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
        return messages[:-1]


def image_urls(messages: Sequence[Message]) -> list[str]:
    """Of all images, in order. Raises UserError where somebody else than the user sends one."""
    urls = []
    for message in messages:
        parts = [] if isinstance(message.content, str) else message.content
        found = [part.image_url.url for part in parts if isinstance(part, ImagePart)]
        if found and message.role != "user":
            raise UserError(
                f"expected images in messages of the user, found one of the {message.role}; move it"
            )
        urls += found
    return urls


def _split(messages: Sequence[Message]) -> tuple[str, list[tuple[Message, Message | None]]]:
    """The system's text, and questions with their answers, the last one without."""
    system = "\n".join(_words(each) for each in messages if each.role in ("system", "developer"))
    said = [each for each in messages if each.role not in ("system", "developer")]
    if any(each.role in ("system", "developer") for each in messages[len(messages) - len(said) :]):
        raise UserError("expected system messages before all others, found one behind; move it")
    for number, message in enumerate(said):
        expected = "assistant" if number % 2 else "user"
        if message.role != expected:
            raise UserError(
                f"expected messages of user and assistant in turn, found one of the {message.role} as number "
                f"{number + 1}; merge or drop it"
            )
    if len(said) % 2 == 0:
        raise UserError("expected a message of the user at the end, found none; ask something")
    return system, [(said[at], said[at + 1] if at + 1 < len(said) else None) for at in range(0, len(said), 2)]


def _words(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(part.text for part in message.content if not isinstance(part, ImagePart))
