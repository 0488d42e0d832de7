"""How long work tells where it stands: a callback with a small record, rendered by the command line only."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "ProgressCallback", "no_progress"]


@dataclass(frozen=True)
class Progress:
    """Where a stage stands.

    ``stage`` is what the user reads ("Trace decoder", "Build decoder.engine"); ``fraction`` is the done part
    in 0..1, or None where it cannot be known; ``detail`` is a few words on the current step.
    """

    stage: str
    fraction: float | None = None
    detail: str = ""


ProgressCallback = Callable[[Progress], None]


def no_progress(_: Progress) -> None:
    """The default callback: says nothing."""
