"""The program that builds one engine and ends: ``python -m asap_export.engine.compile PARENT``, started by
``child.py``, whose process is PARENT.

A ``Job`` comes in as JSON on standard input; on standard output go messages, one JSON object a line: progress
(``fraction``, ``detail``), and last either ``version`` (of TensorRT: the engine is written), ``refused``
(TensorRT's own words) or ``errno`` (of the operating system, while writing).
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from asap_export.bundle import Profile
from asap_export.bundle.manifest import Flavor
from asap_export.engine.flavor import Tools, load_tools
from asap_export.engine.monitor import BuildProgress, progress_monitor, quiet_logger

__all__ = ["Job", "builder_config", "compile_engine"]


_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


@dataclass(frozen=True)
class Job:
    """One ONNX file, and the engine to make of it."""

    graph: str
    engine: str
    flavor: Flavor
    capabilities: tuple[str, ...]
    profiles: tuple[Profile, ...]


def _end_with(parent: int) -> None:
    """Let Linux end this process with its parent, however that ends: TensorRT would go on and write for long."""
    with suppress(OSError, AttributeError):  # of another system
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def main() -> None:
    _end_with(int(sys.argv[1]))
    channel = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no message

    def tell(**message: object) -> None:
        try:
            os.write(channel, f"{json.dumps(message)}\n".encode())
        except OSError:  # nobody listens any more; TensorRT would swallow an exception and go on for minutes
            os._exit(1)

    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    tools = load_tools(job.flavor)
    errors = _silence(tools)
    try:
        built = compile_engine(tools, job, lambda fraction, detail: tell(fraction=fraction, detail=detail))
        said = "" if built else "no reason given"
    except OSError as error:
        return tell(errno=error.errno)
    except _polygraphy_exception() as error:
        said = str(error)
    if said:
        return tell(refused=errors[-1] if errors else said)
    return tell(version=tools.trt.__version__)


def _silence(tools: Tools) -> list[str]:
    """Let Polygraphy and TensorRT say nothing; what TensorRT calls errors is collected in the list."""
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.CRITICAL + 1
    tools.loaders.util.TRT_LOGGER = logger = quiet_logger(tools.trt)
    errors: list[str] = logger.errors
    return errors


def _polygraphy_exception() -> type[Exception]:
    from polygraphy.exception import PolygraphyException

    kind: type[Exception] = PolygraphyException
    return kind


def compile_engine(tools: Tools, job: Job, report: Callable[[float, str], None]) -> bool:
    """Write the engine, piece by piece where TensorRT can, so that it never lies in memory as a whole.

    Returns whether TensorRT built it. Raises OSError where it cannot be written, PolygraphyException where
    the graph cannot be parsed.
    """
    # Every attention layer may be decomposed: where TensorRT has a kernel it takes that all the same.
    builder, network, _parser = tools.loaders.set_decomposable_attentions(
        tools.loaders.network_from_onnx_path(job.graph)
    )
    monitor = progress_monitor(tools.trt, BuildProgress(report))
    config = builder_config(tools, builder, network, job, progress_monitor=monitor)
    with Path(job.engine).open("wb") as file:
        if not hasattr(builder, "build_serialized_network_to_stream"):
            plan = builder.build_serialized_network(network, config)
            return plan is not None and file.write(memoryview(plan)) > 0
        writer = _stream_writer(tools.trt, file)
        built = builder.build_serialized_network_to_stream(network, config, writer)
        if writer.error is not None:
            raise writer.error
        return bool(built) and writer.written > 0


def builder_config(tools: Tools, builder: Any, network: Any, job: Job, **options: Any) -> Any:
    """TensorRT's settings for a job; ``options`` are Polygraphy's."""
    config = tools.create_config(
        builder,
        network,
        job.capabilities,
        profiles=[_polygraphy_profile(tools.loaders, profile) for profile in job.profiles],
        profiling_verbosity=tools.trt.ProfilingVerbosity.LAYER_NAMES_ONLY,
        **options,
    )
    # Scores are float32, and TF32, which TensorRT takes by default, has ten bits of mantissa.
    config.clear_flag(tools.trt.BuilderFlag.TF32)
    return config


def _polygraphy_profile(loaders: Any, profile: Profile) -> Any:
    ranges = loaders.Profile()
    for name, range_ in (profile.shapes | profile.values).items():
        ranges.add(name, range_.min, range_.opt, range_.max)
    return ranges


def _stream_writer(trt: Any, file: BinaryIO) -> Any:
    """A ``trt.IStreamWriter`` into ``file``. TensorRT takes no note of exceptions and short writes, and says
    that it has built the engine: so ``error`` keeps the first OSError, and ``written`` counts bytes."""

    class StreamWriter(trt.IStreamWriter):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)
            self.error: OSError | None = None
            self.written = 0

        def write(self, data: bytes) -> int:
            if self.error is not None:
                return 0
            try:
                file.write(data)
            except OSError as error:
                self.error = error
                return 0
            self.written += len(data)
            return len(data)

    return StreamWriter()


if __name__ == "__main__":
    main()
