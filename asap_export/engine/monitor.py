"""TensorRT's progress monitor and its log, in the project's terms."""

from collections.abc import Callable
from typing import Any

__all__ = ["BuildProgress", "progress_monitor", "quiet_logger"]

_NOTABLE = 0.005  # smallest advance worth a report: TensorRT counts thousands of steps


class BuildProgress:
    """TensorRT's nested phases as one growing fraction, reported with the name of the innermost phase.

    Each phase divides one step of the phase that it is part of.
    """

    def __init__(self, report: Callable[[float, str], None]) -> None:
        self.report = report
        self._phases: list[tuple[str, int, int]] = []  # name, steps, steps done; outermost first
        self._reported = -1.0

    def start(self, phase: str, steps: int) -> None:
        self._phases.append((phase, max(steps, 1), 0))
        self._tell()

    def step(self, phase: str, number: int) -> None:
        """Step ``number`` (from 0) of ``phase`` is done."""
        self._phases = [
            (name, steps, min(number + 1, steps)) if name == phase else (name, steps, done)
            for name, steps, done in self._phases
        ]
        self._tell()

    def finish(self, phase: str) -> None:
        self._phases = [entry for entry in self._phases if entry[0] != phase]

    @property
    def fraction(self) -> float:
        total, weight = 0.0, 1.0
        for _, steps, done in self._phases:
            total += weight * done / steps
            weight /= steps
        return min(total, 1.0)

    def _tell(self) -> None:
        if self.fraction >= self._reported + _NOTABLE:
            self._reported = self.fraction
            self.report(self.fraction, self._phases[-1][0].lower())


def progress_monitor(trt: Any, progress: BuildProgress) -> Any:
    """A ``trt.IProgressMonitor`` that tells ``progress``."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress.step(phase_name, step)
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()


def quiet_logger(trt: Any) -> Any:
    """A ``trt.ILogger`` that prints nothing and remembers errors, in order, in ``errors``."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(message)

    return Logger()
