"""Progress on stderr: bars on a terminal, elsewhere one line for each finished stage; nothing with --quiet."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from asap_export.cli.interruption import raise_if_interrupted
from asap_export.cli.verbosity import is_quiet, is_verbose
from asap_export.progress import Progress as Stand
from asap_export.progress import ProgressCallback, no_progress

__all__ = ["shown_progress"]

_BETWEEN_DETAILS = 1.0  # seconds, with --verbose


@contextmanager
def shown_progress(console: Console | None = None) -> Iterator[ProgressCallback]:
    """A callback that shows what it is told until the block ends; a stage ends where the next begins.

    The callback may be called from any thread: TensorRT builds in several. In the main one it raises
    KeyboardInterrupt where one came and was swallowed on the way.
    """
    console = console or Console(stderr=True)
    show = _nothing if is_quiet() else _bars if console.is_terminal else _lines
    with show(console) as callback:

        def told(stand: Stand) -> None:
            raise_if_interrupted()
            callback(stand)

        yield told


@contextmanager
def _nothing(_: Console) -> Iterator[ProgressCallback]:
    yield no_progress


@contextmanager
def _bars(console: Console) -> Iterator[ProgressCallback]:
    columns = (
        SpinnerColumn(finished_text=" "),  # moves where a fraction stands still
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", style="dim", markup=False),
    )
    lock = Lock()
    with Progress(*columns, console=console) as bars:

        def finish() -> None:
            if bars.tasks:
                bars.update(bars.tasks[-1].id, total=1, completed=1, detail="")

        def shown(stand: Stand) -> None:
            with lock:
                if not bars.tasks or bars.tasks[-1].description != stand.stage:
                    finish()
                    bars.add_task(stand.stage, total=None, detail="")
                known = stand.fraction is not None
                bars.update(
                    bars.tasks[-1].id,
                    total=1 if known else None,
                    completed=stand.fraction or 0,
                    detail=stand.detail,
                )

        yield shown
        finish()


@contextmanager
def _lines(console: Console) -> Iterator[ProgressCallback]:
    lock = Lock()
    current: str | None = None
    began = detailed = time.monotonic()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    def finish() -> None:
        if current is not None:
            say(f"{current}: {time.monotonic() - began:.1f} s")

    def shown(stand: Stand) -> None:
        nonlocal current, began, detailed
        with lock:
            now = time.monotonic()
            if stand.stage != current:
                finish()
                current, began, detailed = stand.stage, now, now
            if is_verbose() and stand.detail and now - detailed >= _BETWEEN_DETAILS:
                detailed = now
                say(f"{stand.stage}: {stand.detail}")

    yield shown
    finish()
