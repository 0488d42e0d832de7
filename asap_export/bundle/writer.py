"""Writing a bundle: all work in a hidden sibling of the output, which takes its name when complete."""

import errno
import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from asap_export.bundle.folder import MANIFEST, PARITY, PARTIAL, Bundle, inside, read_manifest
from asap_export.bundle.hashing import sha256_of_each
from asap_export.bundle.manifest import EngineInfo, FileInfo, Manifest
from asap_export.bundle.refusals import as_user_error, check_replaceable, system_refusal
from asap_export.errors import UserError
from asap_export.progress import ProgressCallback, no_progress

__all__ = ["BundleWriter", "add_engine", "utc_now"]

_REPLACED = ".replaced-"  # in the name of an old bundle on its way out


class BundleWriter:
    """Context manager around the making of one bundle.

    ``path`` is the folder to write in, ``complete(manifest)`` the last call of the with-body: it hashes what
    was written, adds the manifest and renames the folder to ``output``. Without it, or on any exception,
    nothing stays. System errors in the with-body (a full disk) are raised as UserError.

    Raises UserError on entry where ``output`` exists and ``overwrite`` is off, or what exists is no bundle.
    """

    def __init__(self, output: str | Path, overwrite: bool = False) -> None:
        self.output = Path(output).expanduser().resolve()
        self.path = self.output.parent / f".{self.output.name}{PARTIAL}{os.getpid()}-{secrets.token_hex(4)}"
        self._known: dict[str, str] = {}  # sha256 by relative name
        self._overwrite = overwrite
        self._locks: list[int] = []

    def __enter__(self) -> Self:
        try:
            _remove_leftovers(self.output)
            check_replaceable(self.output, self._overwrite)
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir()
            self._locks.append(_locked(self.path))
        except OSError as error:
            raise system_refusal(error, self.output.parent) from error
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

    def place_file(
        self, source: Path, relative: str, sha256: str | None = None, link: bool = True
    ) -> Literal["linked", "copied"]:
        """Hard-link ``source`` into the bundle; copy it where the file system cannot, or ``link`` is off.

        ``sha256``, where it is already known, spares reading the file again in ``complete``. Raises UserError
        where a copy does not fit on the disk.
        """
        source = source.resolve()  # a link to a link's target, never to the link
        target = inside(self.path, relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        if sha256:
            self._known[relative] = sha256
        if target.exists():
            raise FileExistsError(target)  # copying over a hard link would change the checkpoint itself
        if link:
            with suppress(OSError):
                os.link(source, target)
                return "linked"
        self.require_space(source.stat().st_size)
        shutil.copyfile(source, target)
        return "copied"

    def require_space(self, size: int) -> None:
        """Raise UserError unless ``size`` bytes are free where the bundle is written."""
        free = shutil.disk_usage(self.path).free
        if free < size:
            raise UserError(
                f"disk full: needed {_gigabytes(size)}, free {_gigabytes(free)} in {self.output.parent}; "
                "free space or choose another --output"
            )

    def complete(self, manifest: Manifest, progress: ProgressCallback = no_progress) -> Bundle:
        """Finish the bundle and move it to ``output``; ``manifest.files`` is filled in here.

        An old bundle at ``output`` is there until the new one takes its name. Raises UserError where
        something that may not be replaced came to be there in the meantime.
        """
        files = describe_files(self.path, self._known, progress)
        manifest = replace(manifest, files=files)
        for name in (graph.file for graph in manifest.graphs.values()):
            if name not in files:
                raise RuntimeError(f"the manifest names {name}, but nothing wrote it")
        write_durably(self.path / MANIFEST, manifest.text())
        check_replaceable(self.output, self._overwrite)
        if self.output.exists():
            self._take_the_place_of_the_old()
        else:
            self.path.rename(self.output)
        _sync_folder(self.output.parent)
        return Bundle(self.output, manifest)

    def _take_the_place_of_the_old(self) -> None:
        old = self.output.parent / f".{self.output.name}{_REPLACED}{os.getpid()}-{secrets.token_hex(4)}"
        self._locks.append(_locked(self.output))
        self.output.rename(old)
        try:
            self.path.rename(self.output)
        finally:
            if not self.output.exists():
                old.rename(self.output)
        shutil.rmtree(old, ignore_errors=True)


def add_engine(
    bundle: Bundle, engine: EngineInfo, built: Path, progress: ProgressCallback = no_progress
) -> Bundle:
    """Move the file ``built`` into the bundle as ``engine.file`` and list it; an older one of that name goes.

    Interrupted at any point, the bundle stays valid: the entry leaves the manifest before the file changes
    and comes back after. Raises UserError on a system error (a full disk).
    """
    target = inside(bundle.path, engine.file)
    staged = target.with_name(f".{target.name}{PARTIAL}{os.getpid()}")
    try:
        target.parent.mkdir(exist_ok=True)
        shutil.move(built, staged)
        digest = sha256_of_each({engine.file: staged}, "Hash engine", progress)[engine.file]
        info = FileInfo(digest, staged.stat().st_size)

        manifest = read_manifest(bundle.path)
        others = tuple(other for other in manifest.engines if other.file != engine.file)
        files = {name: file for name, file in manifest.files.items() if name != engine.file}
        if len(files) < len(manifest.files):
            write_durably(bundle.path / MANIFEST, replace(manifest, engines=others, files=files).text())
        staged.replace(target)
        manifest = replace(manifest, engines=(*others, engine), files={**files, engine.file: info})
        write_durably(bundle.path / MANIFEST, manifest.text())
    except OSError as error:
        raise system_refusal(error, bundle.path) from error
    finally:
        staged.unlink(missing_ok=True)
    return Bundle(bundle.path, manifest)


def describe_files(
    folder: Path, known: Mapping[str, str], progress: ProgressCallback = no_progress
) -> dict[str, FileInfo]:
    """Every file under ``folder`` by relative name, sorted; a ``known`` sha256 is not computed again."""
    paths = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    paths = {name: path for name, path in paths.items() if name not in (MANIFEST, PARITY)}
    unknown = {name: path for name, path in paths.items() if name not in known}
    digests = {**known, **sha256_of_each(unknown, "Hash bundle", progress)}
    return {name: FileInfo(digests[name], path.stat().st_size) for name, path in paths.items()}


def write_durably(path: Path, text: str) -> None:
    """Replace the file in one step; its content is on the disk before it has its name."""
    staged = path.with_name(f".{path.name}{PARTIAL}{os.getpid()}")
    try:
        with staged.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    _sync_folder(path.parent)


def utc_now() -> str:
    """The manifest's form of the present time."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def _sync_folder(folder: Path) -> None:
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
    name = glob.escape(f".{output.name}")
    for replaced in sorted(output.parent.glob(f"{name}{_REPLACED}*")):
        if not _abandoned(replaced):
            continue
        if output.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(output)  # killed between two renames: the old bundle is the only one there is
    for partial in output.parent.glob(f"{name}{PARTIAL}*"):
        if _abandoned(partial):
            shutil.rmtree(partial, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    try:
        os.close(_locked(folder))
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.ENOLCK, errno.EACCES):
            return False
        return error.errno != errno.ENOENT
    return True
