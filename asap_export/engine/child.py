"""An engine is built in a process of its own.

A crash inside TensorRT ends that process and not the export, memory goes back to the system after every engine,
and Ctrl-C need not wait for TensorRT.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryFile
from typing import Any

import msgspec

from asap_export.bundle.refusals import system_refusal
from asap_export.engine.compile import Job
from asap_export.errors import UserError
from asap_export.progress import Progress, ProgressCallback

__all__ = ["build_in_child"]

_PROGRAM = (sys.executable, "-P", "-m", "asap_export.engine.compile")
_SMALLER = "use --quantize int4, --layers-per-engine, another machine, or --engine ort for the graphs alone"


def build_in_child(job: Job, name: str, stage: str, progress: ProgressCallback) -> str:
    """Build the engine of ``job``; returns TensorRT's version. ``name`` is what errors call the engine.

    Raises UserError where TensorRT refuses, crashes or runs out of memory, or the engine cannot be written;
    KeyboardInterrupt where the user interrupts. No part of an engine stays.
    """
    target = Path(job.engine)
    target.parent.mkdir(exist_ok=True)
    try:
        return _built(job, name, stage, progress)
    except BaseException:
        target.unlink(missing_ok=True)
        if not any(target.parent.iterdir()):
            target.parent.rmdir()
        raise


def _built(job: Job, name: str, stage: str, progress: ProgressCallback) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    last: dict[str, Any] = {}
    with TemporaryFile() as printed:
        # Of a session of its own, so that Ctrl-C reaches this process alone, which then ends the child.
        with Popen(
            (*_PROGRAM, str(os.getpid())),
            stdin=PIPE,
            stdout=PIPE,
            stderr=printed,
            env=environment,
            start_new_session=True,
        ) as child:
            assert child.stdin is not None and child.stdout is not None
            try:
                with suppress(BrokenPipeError):  # it ended before it had read its job; its status says why
                    child.stdin.write(msgspec.json.encode(job))
                    child.stdin.close()
                for line in child.stdout:
                    last = json.loads(line)
                    if "fraction" in last:
                        progress(Progress(stage, last["fraction"], last["detail"]))
            except BaseException:
                child.kill()
                raise
        if child.returncode < 0:
            raise UserError(_crashed(name, -child.returncode))
        if "errno" in last:
            error = OSError(last["errno"], os.strerror(last["errno"]), job.engine)
            raise system_refusal(error, Path(job.engine).parent)
        if "refused" in last:
            said = " ".join(last["refused"].split())[:300]
            raise UserError(
                f"expected TensorRT to build {name}, found: {said}; use --engine ort for the graphs alone"
            )
        if "version" not in last:
            printed.seek(0)
            raise RuntimeError(f"building {name} ended early:\n{printed.read().decode(errors='replace')}")
        return str(last["version"])


def _crashed(name: str, number: int) -> str:
    if number == signal.SIGKILL:
        return (
            f"expected TensorRT to build {name}, found that the system killed it, most likely for want of "
            f"memory; {_SMALLER}"
        )
    return f"expected TensorRT to build {name}, found that it crashed ({signal.Signals(number).name}); {_SMALLER}"
