"""What stands in the way of writing a bundle, in the words of the person who can move it."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from asap_export.bundle.document import read_document
from asap_export.bundle.errors import BundleError
from asap_export.bundle.folder import manifest_bytes
from asap_export.errors import UserError

__all__ = [
    "as_user_error",
    "check_output",
    "check_replaceable",
    "is_bundle",
    "nearest_folder",
    "require_space",
    "system_refusal",
]

_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_output(output: Path, overwrite: bool) -> None:
    """Raise UserError where no bundle can be written to ``output``, as far as that shows without writing."""
    check_replaceable(output, overwrite, "a bundle", is_bundle)
    place = nearest_folder(output.parent)
    if not place.is_dir():
        raise system_refusal(NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place), place)
    if not os.access(place, os.W_OK | os.X_OK):
        raise system_refusal(PermissionError(errno.EACCES, os.strerror(errno.EACCES), place), place)


def check_replaceable(output: Path, overwrite: bool, what: str, is_ours: Callable[[Path], bool]) -> None:
    """Raise UserError where a folder of the kind ``what`` ("a bundle") may not be written to ``output``.

    ``is_ours`` tells folders of that kind.
    """
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise UserError(f"expected no {output} yet, found one; choose another --output or pass --overwrite")
    if not output.is_dir():
        raise UserError(f"expected {what} to overwrite at {output}, found a file; choose another --output")
    if any(output.iterdir()) and not is_ours(output):
        raise UserError(
            f"expected {what} to overwrite at {output}, found other files; choose another --output"
        )


def require_space(size: int, output: Path) -> None:
    """Raise UserError unless ``size`` bytes are free where ``output`` is, or is to be."""
    if (free := shutil.disk_usage(nearest_folder(output)).free) < size:
        raise UserError(
            f"disk full: needed {size / 1e9:.2f} GB, free {free / 1e9:.2f} GB in {output.parent}; "
            "free space or choose another --output"
        )


def nearest_folder(path: Path) -> Path:
    """``path`` itself or the first place above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def is_bundle(folder: Path) -> bool:
    """Whether the folder was written by asap-export; a damaged bundle counts."""
    try:
        document = read_document(manifest_bytes(folder))
    except BundleError:
        return False
    return isinstance(document, dict) and "schema_version" in document and "graphs" in document


def as_user_error(error: BaseException | None, folder: Path) -> UserError | None:
    """What to tell the user of a system error while writing below ``folder``; None for any other exception.

    Libraries wrap a full disk in errors of their own, so causes and messages are searched too.
    """
    link = error if isinstance(error, Exception) else None
    while link is not None and not isinstance(link, UserError):
        if (isinstance(link, OSError) and link.errno in _FULL) or os.strerror(errno.ENOSPC) in str(link):
            return _disk_full(folder)
        cause = link.__cause__ or link.__context__
        link = cause if isinstance(cause, Exception) else None
    if isinstance(error, OSError) and error.errno is not None:
        return system_refusal(error, folder)
    return None


def system_refusal(error: OSError, folder: Path) -> UserError:
    """A system error while writing below ``folder``, in one line."""
    if error.errno in _FULL:
        return _disk_full(folder)
    reason = f"{error.strerror or error}: {error.filename or folder}"
    return UserError(
        f"expected to read and write files, found {reason}; mend that or choose another --output"
    )


def _disk_full(folder: Path) -> UserError:
    existing = nearest_folder(folder)
    free = shutil.disk_usage(existing).free / 1e9
    return UserError(
        f"disk full: needed more than the {free:.2f} GB free in {existing}; "
        "free space or choose another --output"
    )
