"""A chat template taken apart into the texts that it writes, for programs without Jinja to put together.

``PromptReader`` renders the template with a mark in the text's place, and the parts are what lies around it. Then
the parts must give what the template writes in many conversations: one that does more than parts can say stays
whole, and the reason is said.
"""

from collections.abc import Callable, Iterator, Sequence

from asap_export.bundle import PromptInfo, TemplateInfo, TurnParts
from asap_export.runtime.prompt import PromptReader, Turn

__all__ = ["NotInParts", "prompt_info", "put_together", "template_parts"]

_TEXT = "\ue000text\ue000"  # private-use characters, which no template knows
_MOST_IMAGES, _MOST_TURNS = 4, 4
_TEXTS = (
    "What is on the mat?",
    "",
    "two\n\nlines\n",
    "  spaces \t\r\n",
    "\u3000wide ones\u00a0\u2003",
    "\x1cseparators\x85",
    "Is {image} like {image}?",
    " {image}\n",
    "{{ messages }} {% if %} {# note #}",
    "<b>&amp;</b> \"quoted\" 'text' \\n",
    "USER: hello ASSISTANT: [INST] you [/INST] <|im_end|> </s>",
    "垫子上有什么？ 👩‍👩‍👧",
)


class NotInParts(Exception):
    """A template that ``TemplateInfo`` cannot express; the message says what it does, beginning with a verb."""


def prompt_info(reader: PromptReader) -> tuple[PromptInfo, str | None]:
    """How a reader's prompts are made, and, where the template is no part of it, the reason."""
    mark, bos = reader.processor.image_token, reader.tokenizer.bos_token
    try:
        return PromptInfo(mark, bos, template_parts(reader)), None
    except NotInParts as error:
        return PromptInfo(mark, bos, None), str(error)


def put_together(parts: TurnParts, trims: bool, text: str, images: int, mark: str) -> str:
    """What a template writes for a turn, from its parts; ``mark`` is that of an image."""
    said = text.strip() if trims else text
    if images == 0 or mark in text:
        return f"{parts.start}{said}{parts.end}"
    return f"{parts.start}{parts.image * images}{parts.after_images}{said}{parts.end}"


def template_parts(reader: PromptReader) -> TemplateInfo:
    """The parts of a reader's chat template. Raises NotInParts where it does more than they say."""
    if not reader.processor.chat_template:
        raise NotInParts("is missing")
    if "strftime_now" in str(reader.processor.chat_template):
        raise NotInParts("writes the date")
    try:
        return _checked_parts(reader)
    except NotInParts:
        raise
    except Exception as error:  # a template may raise what it likes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NotInParts(f"refuses a conversation: {reason}") from error


def _checked_parts(reader: PromptReader) -> TemplateInfo:
    def later(text: str, images: int) -> str:
        return reader.later_text([Turn("a", 0, "b")], text, images)

    trims = f" {_TEXT} " not in reader.first_text(f" {_TEXT} ", 0)
    template = TemplateInfo(trims, _parts(reader.first_text), _parts(later))
    mark = reader.processor.image_token
    for history, turn in _conversations(mark):
        if history:
            found, parts = reader.later_text(history, turn.text, turn.images), template.later
        else:
            found, parts = reader.first_text(turn.text, turn.images), template.first
        if found != put_together(parts, trims, turn.text, turn.images, mark):
            raise NotInParts(
                f"writes turn {len(history) + 1} with {turn.images} images and the text {turn.text!r} in a way "
                "of its own"
            )
    return template


def _parts(render: Callable[[str, int], str]) -> TurnParts:
    """What stands before a text with no, one and two images, and what stands after it."""
    before = []
    for images in range(3):
        front, found, end = render(_TEXT, images).partition(_TEXT)
        if not found or _TEXT in end:
            raise NotInParts("does not write the user's text once")
        before.append(front)
    start, one, two = before
    behind, length = one[len(start) :], len(two) - len(one)
    return TurnParts(start, behind[:length], behind[length:], end)


def _conversations(mark: str) -> Iterator[tuple[Sequence[Turn], Turn]]:
    """Every text with every number of images in every turn, behind turns that change from one to the next."""
    texts = [text.replace("{image}", mark) for text in _TEXTS]
    place = 0
    for earlier in range(_MOST_TURNS):
        for text in texts:
            for images in range(_MOST_IMAGES + 1):
                history = []
                for _ in range(earlier):
                    place += 1
                    said, answer = texts[place % len(texts)], texts[place * 5 % len(texts)]
                    history.append(Turn(said, place % (_MOST_IMAGES + 1), answer))
                yield history, Turn(text, images)
