"""A table of facts, for a terminal and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

__all__ = ["Sheet", "sheet_markdown", "sheet_table"]


@dataclass(frozen=True)
class Sheet:
    """A title, the columns' names, rows of cells, and what to know of them. The first column and those named in
    ``words`` are words, the others numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = ()
    note: str = ""

    def holds_words(self, column: str) -> bool:
        return column == self.columns[0] or column in self.words


def sheet_markdown(sheet: Sheet, level: int) -> str:
    """With a heading of ``level``."""
    marks = "".join("---|" if sheet.holds_words(name) else "--:|" for name in sheet.columns)
    rows = [[cell.replace("|", "\\|") for cell in row] for row in sheet.rows]
    first, *others = [f"| {' | '.join(line)} |" for line in (sheet.columns, *rows)]
    table = "\n".join([first, f"|{marks}", *others])
    return "\n\n".join(filter(None, (f"{'#' * level} {sheet.title}", table, sheet.note)))


def sheet_table(sheet: Sheet) -> RenderableType:
    """With an empty line before its title."""
    table = Table(box=None, pad_edge=False)
    for name in sheet.columns:
        table.add_column(name, justify="left" if sheet.holds_words(name) else "right")
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    note = [Text(sheet.note, style="dim")] if sheet.note else []
    return Group(Text(""), Text(sheet.title, style="bold"), table, *note)
