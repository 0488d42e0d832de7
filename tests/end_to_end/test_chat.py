"""``run --chat`` of the installed command: fed by a script, and at a terminal."""

import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from installed_command import COMMAND, ENVIRONMENT, IMAGES, refused, run

MAT, SIGN = IMAGES / "mat.png", IMAGES / "sign.png"
SHORT = ("--max-new-tokens", "4", "--no-stream")


def kept(stderr: str) -> list[str]:
    """The beginnings of the lines on what an answer took."""
    return [line.partition(",")[0] for line in stderr.splitlines() if "first token" in line]


# A script.


def test_turns_come_from_stdin_and_a_later_one_may_bring_an_image(
    pruned_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "a sign.png").write_bytes(SIGN.read_bytes())
    turns = "Hello?\n\n/help\n/image ~/'a sign.png'\nAnd what is this?\nWhy?\n/exit\nnever asked\n"
    home = {"HOME": str(tmp_path)}
    done = run("run", pruned_bundle, "--chat", "--image", MAT, *SHORT, text=turns, environment=home)
    assert kept(done.stderr) == ["45 of 268 visual tokens", "56 of 336 visual tokens", "no image"]
    assert "/image FILE  an image for the next question" in done.stderr
    assert len(done.stdout.splitlines()) >= 3


def test_all_images_of_llava_1_5_have_the_same_count(llava_1_5_bundle: Path) -> None:
    turns = f"Hello?\n/image {SIGN}\n/image {MAT}\nAnd what are these?\n"
    done = run("run", llava_1_5_bundle, "--chat", "--image", MAT, *SHORT, text=turns)
    assert kept(done.stderr) == ["65 visual tokens (dense)", "130 visual tokens (dense)"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/image nowhere.png", "expected an image file at nowhere.png, found nothing; check the path"),
        ("/image", "expected a file after /image, found none; give one, such as /image cat.png"),
        ("/imgae cat.png", "expected a question or a command, found /imgae; /help lists the commands"),
    ],
)
def test_a_script_ends_at_its_first_mistake(
    pruned_bundle: Path, tmp_path: Path, line: str, said: str
) -> None:
    turns = f"{line}\nWhat?\nWhy?\n"
    assert refused("run", pruned_bundle, "--chat", *SHORT, folder=tmp_path, text=turns) == f"error: {said}"


# A terminal.


class Terminal:
    """The command at a pseudo-terminal: what it shows, and keys for it."""

    def __init__(self, screen: int, process: int) -> None:
        self._screen, self._process, self.shown = screen, process, ""

    def until(self, text: str) -> str:
        """Read until ``text`` is shown; returns what was shown on the way."""
        begin, end = len(self.shown), time.monotonic() + 120
        while text not in self.shown[begin:]:
            ready, _, _ = select.select([self._screen], [], [], end - time.monotonic())
            assert ready, f"expected {text!r}, found nothing more behind {self.shown!r}"
            self.shown += os.read(self._screen, 4096).decode(errors="replace")
        return self.shown[begin:]

    def type(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def ends(self) -> int:
        """Its exit status."""
        with suppress(OSError):
            while data := os.read(self._screen, 4096):
                self.shown += data.decode(errors="replace")
        return os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])


@contextmanager
def at_terminal(*arguments: str | Path) -> Iterator[Terminal]:
    process, screen = pty.fork()
    if process == 0:
        os.execve(COMMAND, [str(COMMAND), *map(str, arguments)], ENVIRONMENT | {"TERM": "dumb"})
    try:
        yield Terminal(screen, process)
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        os.close(screen)


def test_a_person_goes_on_behind_mistakes_and_stopped_answers(pruned_bundle: Path) -> None:
    endless = ("--max-new-tokens", "3000", "--temperature", "2", "--provider", "cpu")
    with at_terminal("run", pruned_bundle, "--chat", *endless) as chat:
        chat.until("\r\n> ")
        chat.type("/image nowhere.png\n")
        assert "error: expected an image file at nowhere.png, found nothing" in chat.until("\r\n> ")
        chat.type(f'/image "{MAT}"\n')
        assert "image 1 for the next question: " in chat.until("\r\n> ")
        chat.type("/what is this\n")
        assert "error: expected a question or a command, found /what; /help lists the commands" in chat.until(
            "\r\n> "
        )

        chat.type("Write without an end.\n")
        chat.until("Write without an end.\r\n")
        chat.until(" ")  # it writes
        chat.type("\x03")
        chat.until(
            "stopped; the chat is as it was before this question\r\n> "
        )  # the answer may hold a "> " too
        time.sleep(1)  # until Python reads keys: one that comes while the prompt is drawn waits for the next
        chat.type("\x03")
        chat.until("/exit or Ctrl-D ends the chat\r\n> ")
        chat.type("\x04")
        assert chat.ends() == 0
        assert "Traceback" not in chat.shown


def test_images_of_a_stopped_question_wait_for_the_next(pruned_bundle: Path) -> None:
    with at_terminal("run", pruned_bundle, "--chat", "--image", MAT, "--max-new-tokens", "2") as chat:
        chat.until("\r\n> ")
        chat.type("<image> and <image>?\n")
        assert "found 2 for 1 image" in chat.until("\r\n> ")
        chat.type("What is it?\n")
        assert re.search(r"45 of 268 visual tokens, first token .*, cpu", chat.until(", cpu\r\n> "))
        chat.type("/exit\n")
        assert chat.ends() == 0
