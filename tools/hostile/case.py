"""What a campaign is made of: a hostile input, and the command that is to refuse it."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["Case", "Program", "changed", "copied", "left_out", "replaced"]

Program = Literal["asap-export", "asap-infer"]


@dataclass(frozen=True)
class Case:
    """``make`` writes the input into an empty folder and gives the arguments of the command.

    ``output`` is a name in that folder at which nothing may be left. ``harmless``: what may as well be taken, such
    as a field of another type that nothing reads; ``rightly`` says of the folder and of what the command printed
    whether it was.
    """

    kind: str
    name: str
    make: Callable[[Path], list[str | Path]]
    harmless: bool = False
    program: Program = "asap-export"
    output: str = "out.bundle"
    rightly: Callable[[Path, str], bool] = lambda folder, printed: True


def copied(source: Path, folder: Path) -> Path:
    """``source`` as ``folder``, every file a link: ``replaced`` and ``changed`` leave the source as it is."""
    shutil.copytree(source, folder, copy_function=os.link)
    return folder


def replaced(file: Path, content: bytes) -> None:
    """Give ``file`` other content, whether it is there or not."""
    file.unlink(missing_ok=True)
    file.write_bytes(content)


def changed(file: Path, path: tuple[str | int, ...], value: Any) -> None:
    """Set what stands at ``path`` in a file of JSON."""
    content = json.loads(file.read_text(encoding="utf-8"))
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    replaced(file, json.dumps(content).encode())


def left_out(file: Path, path: tuple[str | int, ...]) -> None:
    """Remove what stands at ``path`` in a file of JSON."""
    content = json.loads(file.read_text(encoding="utf-8"))
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    replaced(file, json.dumps(content).encode())
