"""A process that renders one chat template for ``jinja.py``, so that limits of time and memory can hold.

It reads lines of JSON and answers each with one: first the template, then conversations. It imports nothing of
ours, so that it starts in a moment.
"""

import json
import math
import resource
import sys
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST = 1 << 24  # characters of a rendered conversation


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


def _compiled(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)


def _rendered(template: Template, conversation: dict[str, Any]) -> str:
    pieces, length = [], 0
    for piece in template.generate(tools=None, documents=None, **conversation):
        length += len(piece)
        if length > LONGEST:
            raise TemplateError(f"it writes more than {LONGEST:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def _answer(make: Callable[[], Any]) -> Any:
    """Write what ``make`` gives, or why it gives nothing, and give it."""
    made, answer = None, {}
    try:
        made = make()
        answer["text"] = made if isinstance(made, str) else ""
    except Exception as error:  # a template may raise what it likes
        answer["refused"] = " ".join(str(error)[:2000].split()) or type(error).__name__
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return made


def _grant(seconds: int) -> None:
    """Let this process compute for so many seconds more: each conversation for as many as the first."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    limit = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit if most < 0 else min(limit, most), most))


def _serve() -> None:
    seconds, memory = (int(limit) for limit in sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    _grant(seconds)
    template = _answer(lambda: _compiled(json.loads(sys.stdin.readline())))
    while template is not None and (line := sys.stdin.readline()):
        _grant(seconds)
        _answer(partial(_rendered, template, json.loads(line)))


if __name__ == "__main__":
    _serve()
