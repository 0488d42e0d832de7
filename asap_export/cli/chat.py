"""``asap-export run --chat``: turns from a person at a terminal, or from a script on stdin."""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from PIL.Image import Image

from asap_export.cli.interruption import forget_ctrl_c
from asap_export.errors import UserError
from asap_export.runtime.images import read_image

__all__ = ["Chat"]

_HELP = """\
A line is a question. Ctrl-C stops an answer, Ctrl-D ends the chat.
  /image FILE  an image for the next question; repeat it for several
  /help        this text
  /exit        ends the chat"""

Ask = Callable[[Sequence[Image], str], None]


class Chat:
    """Turns until /exit or the end of stdin; a mistake ends a script, but not a person's chat.

    ``images`` wait for the next question. Those of one that failed or was stopped wait for another.
    """

    def __init__(self, ask: Ask, images: Sequence[Image]) -> None:
        self._ask = ask
        self._images = list(images)
        self._at_terminal = sys.stdin.isatty()

    def run(self, first: str | None) -> None:
        """Ask the ``first`` question, where there is one, and then those that come."""
        if self._at_terminal:
            _say(_HELP)
        if first is not None and not self._turn(self._put, first):
            return
        for line in _typed() if self._at_terminal else filter(None, map(str.strip, sys.stdin)):
            if not self._turn(self._follow, line):
                return

    def _turn(self, act: Callable[[str], bool], line: str) -> bool:
        """Whether the chat goes on."""
        try:
            return act(line)
        except UserError as error:
            if not self._at_terminal:
                raise
            _say(f"error: {' '.join(error.message.split())}")
        except KeyboardInterrupt:
            if not self._at_terminal:
                raise
            forget_ctrl_c()
            _say("\nstopped; the chat is as it was before this question")
        return True

    def _follow(self, line: str) -> bool:
        command, *rest = line.split(maxsplit=1)
        if command in ("/exit", "/quit"):
            return False
        if command == "/help":
            _say(_HELP)
        elif command == "/image":
            self._add_image(rest[0] if rest else "")
        elif command.startswith("/"):
            raise UserError(f"expected a question or a command, found {command}; /help lists the commands")
        else:
            self._put(line)
        return True

    def _put(self, question: str) -> bool:
        self._ask(self._images, question)
        self._images = []
        return True

    def _add_image(self, name: str) -> None:
        if not name:
            raise UserError("expected a file after /image, found none; give one, such as /image cat.png")
        image = read_image(_file(name))
        self._images.append(image)
        if self._at_terminal:
            _say(f"image {len(self._images)} for the next question: {image.width} x {image.height} pixels")


def _file(name: str) -> Path:
    """The file that a person means who quotes as in a shell, or does not; ~ is the home folder."""
    words: list[str] = []
    with suppress(ValueError):  # a lone quote belongs to the name
        words = shlex.split(name)
    path = Path(words[0] if len(words) == 1 else name)
    with suppress(RuntimeError):  # nobody's home
        path = path.expanduser()
    return path


def _typed() -> Iterator[str]:
    with suppress(ImportError):
        import readline  # noqa: F401  # its import gives input() line editing and a history
    while True:
        try:
            if line := input("> ").strip():
                yield line
        except KeyboardInterrupt:
            forget_ctrl_c()
            _say("\n/exit or Ctrl-D ends the chat")
        except EOFError:
            _say("")
            return


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
