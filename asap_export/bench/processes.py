"""Contenders as child processes: one line to each, one line back, and none outlives this one."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Self

from asap_export.bench.records import Contender

__all__ = ["Child", "Failed", "command_of"]

_ROOT = Path(__file__).parents[2]  # where this package lies, installed or not
# Under another interpreter its own packages come first, and this one's dependencies may lack.
_FOREIGN = f"import sys; sys.path.append({str(_ROOT)!r}); from asap_export.bench.worker import main; main()"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Failed(Exception):
    """A contender cannot go on; the message is the line that says why."""


def command_of(contender: Contender) -> Sequence[str]:
    """What runs a contender."""
    if contender.kind == "openvino-genai":
        assert contender.program is not None
        return (contender.program, "-P", "-c", _FOREIGN)
    return (sys.executable, "-P", "-m", "asap_export.bench.worker")


class Child:
    """A process that does a contender's jobs. ``folder`` is for files that it may write.

    Entering the block starts it and waits until the model is loaded; leaving it ends the process at once. Both
    it and ``ask`` raise Failed."""

    def __init__(
        self,
        contender: Contender,
        threads: int,
        folder: Path,
        command: Callable[[Contender], Sequence[str]] = command_of,
    ) -> None:
        self.contender = contender
        self.weights: int | None = None
        self._first = {"contender": asdict(contender), "threads": threads, "folder": str(folder)}
        self._command = command(contender)
        self._environment = os.environ | dict.fromkeys(_THREADS, str(threads))
        if contender.kind == "openvino-genai":
            self._environment.pop("PYTHONPATH", None)
        else:
            self._environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *filter(None, sys.path)])

    def __enter__(self) -> Self:
        self._printed = TemporaryFile()  # closed in __exit__
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._printed,
                env=self._environment,
                start_new_session=True,  # so that Ctrl-C reaches the parent alone, which then ends the child
            )
        except OSError as error:
            self._printed.close()
            raise Failed(f"expected to start {self._command[0]}, found: {error.strerror}") from error
        try:
            self.weights = self.ask(self._first)["weights"]
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):  # it is none any more
            os.killpg(self._process.pid, signal.SIGKILL)  # and the server that it may have started
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._printed.close()

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Give a job and wait for its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended; its status says why
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise Failed(self._ended())
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def _ended(self) -> str:
        status = self._process.wait()
        if status == -signal.SIGKILL:
            return "the system killed it, most likely for want of memory"
        if status < 0:
            return f"it crashed ({signal.Signals(-status).name})"
        self._printed.seek(0)
        said = self._printed.read().decode(errors="replace").strip().splitlines()
        return f"it ended with status {status}: {said[-1].strip() if said else 'without a word'}"
