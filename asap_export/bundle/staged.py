"""Writing a folder whole or not at all: all work in a hidden sibling, which takes its name when complete."""

import ctypes
import errno
import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from asap_export.bundle.folder import PARTIAL
from asap_export.bundle.refusals import as_user_error, check_replaceable, system_refusal
from asap_export.errors import UserError

__all__ = ["StagedFolder", "sync_folder"]

_REPLACED = ".replaced-"  # in the name of an old folder on its way out
_HERE, _EXCHANGE = -100, 2  # Linux's AT_FDCWD and RENAME_EXCHANGE


class StagedFolder:
    """Context manager around the making of one folder.

    ``path`` is the folder to write in, ``publish()`` the last call of the with-body: it renames the folder to
    ``output``. Without it, or on any exception, nothing stays. System errors in the with-body (a full disk) are
    raised as UserError.

    ``what`` names the kind of folder ("a bundle"), ``is_ours`` tells one that may be replaced. Raises UserError on
    entry where ``output`` exists and ``overwrite`` is off, or what exists is not ours.
    """

    def __init__(
        self, output: str | Path, overwrite: bool, what: str, is_ours: Callable[[Path], bool]
    ) -> None:
        self.output = Path(output).expanduser().resolve()
        self.path = self.output.parent / f".{self.output.name}{PARTIAL}{os.getpid()}-{secrets.token_hex(4)}"
        self._overwrite, self._what, self._is_ours = overwrite, what, is_ours
        self._locks: list[int] = []

    def __enter__(self) -> Self:
        try:
            _remove_leftovers(self.output)
            self._check_replaceable()
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir()
            self._locks.append(_locked(self.path))
        except OSError as error:
            raise system_refusal(error, self.output.parent) from error
        try:
            self._check_alone()
        except UserError as refusal:
            self.__exit__(UserError, refusal, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        refusal = as_user_error(error, self.output.parent)  # before removal, which frees the disk
        shutil.rmtree(self.path, ignore_errors=True)
        for lock in self._locks:
            os.close(lock)
        if refusal is not None:
            raise refusal from error

    def publish(self) -> None:
        """Give the folder its name.

        An old one at ``output`` is there until the new one takes its place. Raises UserError where something that
        may not be replaced came to be there in the meantime.
        """
        self._check_replaceable()
        if self.output.exists():
            self._take_the_place_of_the_old()
        else:
            self.path.rename(self.output)
        sync_folder(self.output.parent)

    def _check_replaceable(self) -> None:
        check_replaceable(self.output, self._overwrite, self._what, self._is_ours)

    def _check_alone(self) -> None:
        """Of two that write to one name the second would replace the first, or be refused after all its work."""
        for partial in _siblings(self.output, PARTIAL):
            if partial != self.path and _is_held(partial):
                raise UserError(
                    f"expected to write {self.output} alone, found another export that does; wait for its end or "
                    "choose another --output"
                )

    def _take_the_place_of_the_old(self) -> None:
        if _exchanged(self.path, self.output):  # the old one is what goes when all is done
            return
        old = self.output.parent / f".{self.output.name}{_REPLACED}{os.getpid()}-{secrets.token_hex(4)}"
        self._locks.append(_locked(self.output))
        self.output.rename(old)
        try:
            self.path.rename(self.output)
        finally:
            if not self.output.exists():
                old.rename(self.output)
        shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _locked(folder: Path) -> int:
    """The mark of live work: a lock that the kernel drops when this process ends, however it ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _remove_leftovers(output: Path) -> None:
    """Clear what killed runs left beside ``output``; what a living process holds stays.

    A process id would not do: ids are reused, and mean nothing on a file system shared between containers.
    """
    for replaced in _siblings(output, _REPLACED):
        if not _abandoned(replaced):
            continue
        if output.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(output)  # killed between two renames: the old one is all there is
    for partial in _siblings(output, PARTIAL):
        if _abandoned(partial):
            shutil.rmtree(partial, ignore_errors=True)


def _siblings(output: Path, kind: str) -> list[Path]:
    return sorted(output.parent.glob(f"{glob.escape(f'.{output.name}')}{kind}*"))


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders take each other's name in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return not rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)


def _is_held(folder: Path) -> bool:
    """Whether a living process holds the folder's lock."""
    try:
        os.close(_locked(folder))
    except OSError as error:
        return error.errno == errno.EWOULDBLOCK
    return False


def _abandoned(folder: Path) -> bool:
    try:
        os.close(_locked(folder))
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.ENOLCK, errno.EACCES):
            return False
        return error.errno != errno.ENOENT
    return True
