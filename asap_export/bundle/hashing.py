"""SHA-256 of files too large to read at once."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from asap_export.progress import Progress, ProgressCallback, no_progress

__all__ = ["sha256_of", "sha256_of_each"]

_CHUNK = 4 << 20  # bytes


def sha256_of(path: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """Hexadecimal digest of the file; ``advance`` is told the number of bytes of each piece read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
            advance(len(piece))
    return digest.hexdigest()


def sha256_of_each(
    paths: Mapping[str, Path], stage: str, progress: ProgressCallback = no_progress
) -> dict[str, str]:
    """Digest of each file by its name; progress counts bytes over all of them."""
    total = sum(path.stat().st_size for path in paths.values())
    done = 0
    digests = {}
    for name, path in paths.items():

        def advance(count: int, name: str = name) -> None:
            nonlocal done
            done += count
            progress(Progress(stage, done / total if total else None, name))

        digests[name] = sha256_of(path, advance)
    return digests
