"""Resident memory of this process or another, and its highest mark, as Linux keeps them: a ``Memory`` (see
``staged``)."""

import ctypes
import gc
from pathlib import Path

__all__ = ["give_back", "in_use", "peak", "reset_peak"]

_RESET_PEAK = "5"  # of clear_refs: the high-water mark becomes what is resident now


def give_back() -> None:
    """Return to the system what nobody uses any more; glibc would keep some of it for later."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # other C libraries have none
        trim(0)


def in_use(process: int | None = None) -> int:
    """Bytes in memory now, pages of mapped files included."""
    return _status("VmRSS:", process)


def peak(process: int | None = None) -> int:
    """The most bytes since the last ``reset_peak``."""
    return _status("VmHWM:", process)


def reset_peak(process: int | None = None) -> bool:
    """Begin anew; False where the kernel does not let us."""
    try:
        Path(f"/proc/{process or 'self'}/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _status(name: str, process: int | None) -> int:
    lines = Path(f"/proc/{process or 'self'}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
