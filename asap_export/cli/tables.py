"""Facts on stdout, as JSON or as tables."""

import json
from typing import Any

from rich.console import Console, RenderableType

__all__ = ["print_json", "print_tables"]

_WIDE = 160  # columns where there is no terminal to fit into


def print_json(facts: dict[str, Any]) -> None:
    """One indented JSON object."""
    print(json.dumps(facts, indent=2, ensure_ascii=False))


def print_tables(tables: RenderableType, width: int = _WIDE) -> None:
    """A rich rendering; in a file or a pipe it is plain text of at most ``width`` columns."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=width)
    with console.capture() as rendering:  # printed by ourselves: a broken pipe would make rich exit with 1
        console.print(tables)
    for line in rendering.get().splitlines():
        print(line.rstrip())  # cells are padded, which shows as soon as the text is pasted somewhere
