"""A chat template taken apart into the texts that it writes, for programs without Jinja to put together.

The template is rendered with a mark in the text's place, and the parts are what lies around it. Then the parts
must give what the template writes in many conversations: one that does more than parts can say stays whole, and
the reason is said.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from asap_export.bundle import PromptInfo, TemplateInfo, TurnParts
from asap_export.runtime.template import Turn, WholeTemplate, put_together

__all__ = ["NotInParts", "prompt_info", "self_contained", "template_parts"]

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


def prompt_info(
    template: WholeTemplate, source: str | None, bos_token: str | None
) -> tuple[PromptInfo, str | None]:
    """How the prompts of a template, with its ``source`` in Jinja, are made; where the template is no part of it,
    the reason."""
    try:
        return PromptInfo(template.mark, bos_token, template_parts(template, source)), None
    except NotInParts as error:
        return PromptInfo(template.mark, bos_token, None), str(error)


def self_contained(source: str, special_tokens: Mapping[str, str]) -> str:
    """A template in Jinja that sets the special tokens itself that transformers would hand to it by name."""
    lines = [
        f"{{% set {name} = {json.dumps(token, ensure_ascii=False)} %}}"
        for name, token in special_tokens.items()
    ]
    return "\n".join([*lines, source])


def template_parts(template: WholeTemplate, source: str | None) -> TemplateInfo:
    """The parts of a chat template. Raises NotInParts where it does more than they say."""
    if not source:
        raise NotInParts("is missing")
    if "strftime_now" in source:
        raise NotInParts("writes the date")
    try:
        return _checked_parts(template)
    except NotInParts:
        raise
    except Exception as error:  # a template may raise what it likes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NotInParts(f"refuses a conversation: {reason}") from error


def _checked_parts(template: WholeTemplate) -> TemplateInfo:
    def later(text: str, images: int) -> str:
        return template.later([Turn("a", 0, "b")], text, images)

    trims = f" {_TEXT} " not in template.first(f" {_TEXT} ", 0)
    info = TemplateInfo(trims, _parts(template.first), _parts(later))
    for history, turn in _conversations(template.mark):
        if history:
            found, parts = template.later(history, turn.text, turn.images), info.later
        else:
            found, parts = template.first(turn.text, turn.images), info.first
        if found != put_together(parts, trims, turn.text, turn.images, template.mark):
            raise NotInParts(
                f"writes turn {len(history) + 1} with {turn.images} images and the text {turn.text!r} in a way "
                "of its own"
            )
    return info


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
