"""Writing a bundle, whole or not at all, and adding an engine to one."""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from asap_export.bundle.folder import MANIFEST, PARITY, PARTIAL, Bundle, inside, read_manifest
from asap_export.bundle.hashing import sha256_of_each
from asap_export.bundle.manifest import EngineInfo, FileInfo, Manifest
from asap_export.bundle.refusals import is_bundle, require_space, system_refusal
from asap_export.bundle.staged import StagedFolder, sync_folder
from asap_export.progress import ProgressCallback, no_progress

__all__ = ["BundleWriter", "add_engine", "utc_now"]


class BundleWriter(StagedFolder):
    """Context manager around the making of one bundle.

    ``path`` is the folder to write in, ``complete(manifest)`` the last call of the with-body: it hashes what
    was written, adds the manifest and renames the folder to ``output``. Otherwise as ``StagedFolder``.
    """

    def __init__(self, output: str | Path, overwrite: bool = False) -> None:
        super().__init__(output, overwrite, "a bundle", is_bundle)
        self._known: dict[str, str] = {}  # sha256 by relative name

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
        require_space(source.stat().st_size, self.output)
        shutil.copyfile(source, target)
        return "copied"

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
        Manifest.parse(manifest.text())  # what no runtime would read is not written
        write_durably(self.path / MANIFEST, manifest.text())
        self.publish()
        return Bundle(self.output, manifest)


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
    sync_folder(path.parent)


def utc_now() -> str:
    """The manifest's form of the present time."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
