"""How much memory a long step may take on this machine, asked before it starts."""

import os
from pathlib import Path

__all__ = ["available_memory", "gigabytes"]


# Address space that a thread's stack (8 MiB) and the C library's allocator (64) set aside for it and do not fill.
_THREAD = 72 << 20


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can be allocated now without swapping: the kernel's own estimate, and what is left of the
    limits of the container this process runs in and of its address space. ``root`` stands for the file
    system's root in tests."""
    lines = (root / "proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return max(0, min([free, *_left_in_containers(root), *_left_in_address_space(root)]))


def gigabytes(size: float) -> str:
    """A number of bytes as "4.2 GB", or below a tenth of that unit as "67 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def _left_in_containers(root: Path) -> list[int]:
    """What is left of the limit of each control group around this process, page cache not counted."""
    left = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        # version 2 has one tree for all controllers, version 1 one for each
        limit_name, used_name = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
            if controllers
            else ("memory.max", "memory.current")
        )
        top = root / "sys/fs/cgroup" / controllers
        own = top / group.lstrip("/")
        for folder in (own, *own.parents):
            limit = _text(folder / limit_name).strip()
            if limit.isdigit():  # "max" stands for none
                used = int(_text(folder / used_name).strip() or 0)
                left.append(int(limit) - used + _page_cache(folder))
            if folder == top:
                break
    return left


def _left_in_address_space(root: Path) -> list[int]:
    """What is left of ``ulimit -v``, less what threads may still set aside."""
    limit = _behind("Max address space", root / "proc/self/limits")
    if not limit.isdigit():  # "unlimited"
        return []
    used = int(_behind("VmSize:", root / "proc/self/status") or 0) * 1024
    return [int(limit) - used - _THREAD * (os.cpu_count() or 1)]


def _behind(name: str, file: Path) -> str:
    """The first word behind ``name`` at the start of a line."""
    for line in _text(file).splitlines():
        if line.startswith(name):
            return (line.removeprefix(name).split() or [""])[0]
    return ""


def _page_cache(group: Path) -> int:
    """File pages that the kernel gives back when memory is asked for."""
    entries = dict(line.split() for line in _text(group / "memory.stat").splitlines())
    total = "total_" if "total_inactive_file" in entries else ""  # version 1 counts groups below apart
    return sum(int(entries.get(f"{total}{name}_file", 0)) for name in ("active", "inactive"))


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
