"""``--quiet`` and ``--verbose``: options of the program and of every command."""

import inspect
import sys
from collections.abc import Callable
from contextvars import ContextVar
from enum import Enum
from functools import wraps
from inspect import Parameter
from typing import Annotated

import typer

from asap_export.errors import UserError

__all__ = ["VERBOSITY", "is_quiet", "is_verbose", "note", "reset_verbosity", "with_verbosity"]


class _Level(Enum):
    QUIET = "--quiet"
    USUAL = ""
    VERBOSE = "--verbose"


_level: ContextVar[_Level] = ContextVar("verbosity", default=_Level.USUAL)

SHOWN = "What is shown"
_Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", metavar=" ", help="Print results and errors only.", rich_help_panel=SHOWN),
]
_Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", metavar=" ", help="Print more about what is done.", rich_help_panel=SHOWN
    ),
]
VERBOSITY = tuple(
    Parameter(name, Parameter.KEYWORD_ONLY, default=False, annotation=kind)
    for name, kind in (("quiet", _Quiet), ("verbose", _Verbose))
)


def with_verbosity(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with --quiet and --verbose, where it has none of its own."""
    own = inspect.signature(command, eval_str=True)
    added = [parameter for parameter in VERBOSITY if parameter.name not in own.parameters]

    @wraps(command)
    def run(**given: object) -> None:
        for level in (_Level.QUIET, _Level.VERBOSE):
            if given[level.value.removeprefix("--")]:
                _choose(level)
        command(**{name: value for name, value in given.items() if name in own.parameters})

    run.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    return run


def _choose(level: _Level) -> None:
    if _level.get() not in (level, _Level.USUAL):
        raise UserError("expected --quiet or --verbose, found both; leave one out")
    _level.set(level)


def reset_verbosity() -> None:
    """Forget what an earlier command line of this process asked for."""
    _level.set(_Level.USUAL)


def note(text: str) -> None:
    """Print a line on stderr that --quiet leaves out."""
    if not is_quiet():
        print(text, file=sys.stderr)


def is_quiet() -> bool:
    """Whether progress and notes are unwanted."""
    return _level.get() is _Level.QUIET


def is_verbose() -> bool:
    """Whether details are wanted."""
    return _level.get() is _Level.VERBOSE
