"""Chat templates in Jinja, rendered as transformers renders them; for those that could not be taken apart.

A template may come from anywhere. Jinja's sandbox keeps it from the machine, but not from loops without an end and
texts that fill the memory, so it runs in a process with limits of both.
"""

import json
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from asap_export.errors import UserError
from asap_export.runtime.template import WRITE_IT_WHOLE

__all__ = ["jinja_renderer"]

_CHILD = Path(__file__).with_name("jinja_child.py")
_CPU_SECONDS = 5  # for one conversation, which takes a millisecond
_SECONDS = 20  # the same, on a machine with other things to do
_MEMORY = 1 << 30  # bytes of address space


def jinja_renderer(source: str) -> Callable[..., str]:
    """A function from messages, and add_generation_prompt, to text; threads may share it.

    The function raises UserError where the template is none, refuses the conversation, or takes too much time or
    memory.
    """
    return _Renderer(source)


class _Renderer:
    def __init__(self, source: str) -> None:
        self._source = source
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None  # many bundles are never asked with the template

    def __call__(self, messages: Sequence[dict[str, Any]], add_generation_prompt: bool) -> str:
        conversation = {"messages": list(messages), "add_generation_prompt": add_generation_prompt}
        with self._turn:
            if self._process is None or self._process.poll() is not None:
                self._process = self._started()
            return self._asked(self._process, conversation)

    def _started(self) -> subprocess.Popen[bytes]:
        # -P: the folder of the program holds modules of ours that have names of others.
        command = [sys.executable, "-P", str(_CHILD), str(_CPU_SECONDS), str(_MEMORY)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        weakref.finalize(self, _end, process)
        self._asked(process, self._source)
        return process

    def _asked(self, process: subprocess.Popen[bytes], question: Any) -> str:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:  # it has ended, and has nothing to say
            line = b""
        else:
            line = _line(process, time.monotonic() + _SECONDS)
        if not line:
            with suppress(subprocess.TimeoutExpired):  # its own status says more
                process.wait(1)
            _end(process)
            if process.returncode == 1:  # an exception before it could answer
                raise UserError(
                    f"expected {sys.executable} to import Jinja, found that it cannot; pip install jinja2"
                )
            raise UserError(
                f"expected a chat template that needs at most {_CPU_SECONDS} s and 1 GiB of memory, found one "
                f"that needs more; {WRITE_IT_WHOLE}"
            )
        answer: dict[str, str] = json.loads(line)
        if "refused" in answer:
            raise UserError(
                "expected a conversation that the chat template takes, found that it refuses: "
                f"{answer['refused']}; {WRITE_IT_WHOLE}"
            )
        return answer["text"]


def _line(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """What the process says, up to the end of its line; empty where it says nothing in time."""
    assert process.stdout is not None
    said = bytearray()
    with DefaultSelector() as selector:
        selector.register(process.stdout, EVENT_READ)
        while not said.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return b""
            if not (piece := process.stdout.read1(1 << 20)):  # type: ignore[attr-defined]  # a BufferedReader
                return b""
            said += piece
    return bytes(said)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None and not stream.closed:
            stream.close()
