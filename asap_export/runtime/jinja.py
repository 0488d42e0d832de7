"""Chat templates in Jinja, rendered as transformers renders them; for those that could not be taken apart."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from asap_export.errors import UserError

__all__ = ["jinja_renderer"]


def jinja_renderer(source: str) -> Callable[..., str]:
    """A function from messages, and add_generation_prompt, to text.

    The template may come from anywhere, so it runs in Jinja's sandbox. Raises UserError, as the function does,
    where it is no template or refuses the conversation.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        template = environment.from_string(source)
    except TemplateError as error:
        raise _refusal(error) from error

    def render(messages: Sequence[dict[str, Any]], add_generation_prompt: bool) -> str:
        try:
            return template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # a template may raise what it likes
            raise _refusal(error) from error

    return render


class _Generation(Extension):
    """``{% generation %}`` marks what the model has written, for training; here it is only what stands within."""

    tags = {"generation"}  # noqa: RUF012  # the base class has it so

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise TemplateError(message)


def _refusal(error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"expected a conversation that the chat template takes, found that it refuses: {reason}; write the whole "
        "prompt yourself, with --no-template"
    )
