"""Runs cases, each in a process of its own with limits of time and memory, and judges how each ended.

The processes are forks of one that has imported the command line already: a start of its own for each would import
PyTorch for seconds.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from case import Case
from cpp.programs import INFER

from asap_export.cli.app import run

__all__ = ["MEMORY", "SECONDS", "Outcome", "Result", "carried_out", "has_asap_infer"]

SECONDS = 20  # on a machine with other things to do; a refusal takes a tenth of one
MEMORY = 2 << 30  # bytes of address space above what the imports take

Result = Literal["refused", "taken", "hung", "answered wrong", "not in one line", "left something"]


@dataclass(frozen=True)
class Outcome:
    """How a case ended; ``said`` is what it wrote to stderr, ``memory`` the most that it held, in bytes."""

    case: Case
    result: Result
    said: str
    seconds: float
    memory: int


def carried_out(case: Case, work: Path) -> Outcome:
    """Run a case in ``work``, a folder that is there for it alone."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    arguments = [str(argument) for argument in case.make(work)]
    before = _listing(work)
    start = time.monotonic()
    with (work.with_suffix(".out")).open("w+b") as out, (work.with_suffix(".err")).open("w+b") as errors:
        child = os.fork()
        if child == 0:
            _become(case, arguments, work, out.fileno(), errors.fileno())
        status, memory = _waited_for(child, start + SECONDS)
        seconds = time.monotonic() - start
        errors.seek(0)
        said = errors.read().decode(errors="replace")
        out.seek(0)
        printed = out.read().decode(errors="replace")
    rightly = status == 0 and case.harmless and _in_a_fork(lambda: case.rightly(work, printed))
    result = _judged(status, rightly, said, _listing(work) - before)
    shutil.rmtree(work)
    return Outcome(case, result, said, seconds, memory)


def _become(case: Case, arguments: Sequence[str], work: Path, out: int, errors: int) -> None:
    """The rest of this process is the command."""
    status = 70
    try:
        os.setsid()  # what it starts ends with it
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(errors, 2)
        os.chdir(work)
        if case.program == "asap-infer":
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            os.execv(INFER, [str(INFER), *arguments])
        limit = _address_space() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        status = run(arguments)
    except BaseException:  # as the interpreter would end
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _waited_for(child: int, deadline: float) -> tuple[int | None, int]:
    """The exit status, None where the process had to be ended, and the most memory that it held."""
    hung = False
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            memory = usage.ru_maxrss * 1024
            return (None if hung else os.waitstatus_to_exitcode(status)), memory
        if not hung and time.monotonic() > deadline:
            hung = True
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)


def _in_a_fork(question: Callable[[], bool]) -> bool:
    """The answer of a process of its own, which a hostile input may end."""
    child = os.fork()
    if child == 0:
        answer = False
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            answer = question()
        finally:
            os._exit(0 if answer else 1)
    status, _ = _waited_for(child, time.monotonic() + SECONDS)
    return status == 0


def _judged(status: int | None, rightly: bool, said: str, left: set[str]) -> Result:
    if status is None:
        return "hung"
    if status == 0:
        return "taken" if rightly else "answered wrong"
    lines = [line for line in said.splitlines() if line.strip()]
    if (
        status != 2
        or len(lines) != 1
        or not lines[0].startswith("error: ")
        or lines[0].rstrip().endswith(":")
    ):
        return "not in one line"
    return "left something" if left else "refused"


def _listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def has_asap_infer() -> bool:
    """Whether the C++ program is built and starts."""
    return INFER.exists() and subprocess.run([INFER, "--help"], capture_output=True).returncode == 0
