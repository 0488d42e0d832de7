"""Ctrl-C, SIGTERM and a closed terminal: noted as they come, because a library may swallow what they raise."""

import signal
import sys
import threading
from types import FrameType

__all__ = [
    "forget_ctrl_c",
    "forget_interruption",
    "ignore_interruptions",
    "interrupted_status",
    "note_interruptions",
    "raise_if_interrupted",
]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_noted: int | None = None  # the signal that came last


def note_interruptions() -> None:
    """From now on each of the signals raises KeyboardInterrupt in the main thread, and stays noted."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and shells in the background leave it
            signal.signal(number, _note)
    sys.unraisablehook = _unraisable


def ignore_interruptions() -> None:
    """Nothing is left to be interrupted: a process that ends does so with the status of what it did."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt once more where one came, in the main thread; long work calls it at every stage."""
    if _noted is not None and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def forget_interruption() -> None:
    """It was how the command is meant to end, and it has ended in order."""
    global _noted
    _noted = None


def forget_ctrl_c() -> None:
    """It has done what it was to do: it stopped an answer, and the chat goes on. Other signals end the chat."""
    global _noted
    if _noted not in (None, signal.SIGINT):
        raise KeyboardInterrupt
    _noted = None


def interrupted_status() -> int:
    """128 and the number of the signal, as shells count; 0 where none came."""
    return 0 if _noted is None else 128 + _noted


def _unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Python swallows what is raised in a destructor, and says so; an interruption is noted, and not lost."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)


def _note(number: int, _: FrameType | None) -> None:
    global _noted
    _noted = number
    raise KeyboardInterrupt
