"""The checkpoint that a bundle was made from: found again, and known for the same one."""

from pathlib import Path

from asap_export.bundle import Bundle
from asap_export.bundle.hashing import sha256_of_each
from asap_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from asap_export.errors import UserError
from asap_export.progress import ProgressCallback

__all__ = ["check_source", "open_source"]


def open_source(
    bundle: Bundle, model: str | None, revision: str | None, progress: ProgressCallback
) -> Checkpoint:
    """The checkpoint that the manifest names, or ``model``.

    ``revision`` of a hub id is by default the commit that the bundle was made from. Raises UserError where it
    cannot be opened, with the option that says where it is now.
    """
    source = bundle.manifest.source
    name = model or (None if source.id == "demo" else source.id)
    if revision is None and name == source.id and not Path(source.id).exists():
        revision = source.revision
    try:
        return open_checkpoint(name, revision, progress)
    except UserError as error:
        if model is not None:
            raise
        raise UserError(
            f"{error.message}; the bundle was made from {source.id}: give its place with --model"
        ) from error


def check_source(bundle: Bundle, checkpoint: Checkpoint, progress: ProgressCallback) -> None:
    """Raise UserError unless the checkpoint's files are still those the bundle was made from.

    A shard that the bundle has as a hard link is the bundle's own file, whose hash has been checked.
    """
    wanted = bundle.manifest.source.files
    here = {name: checkpoint.folder / name for name in wanted}
    other = [name for name, file in here.items() if not file.is_file()]
    if not other:
        own = {_identity(bundle.path / name): info.sha256 for name, info in bundle.manifest.files.items()}
        digests = {name: own[_identity(file)] for name, file in here.items() if _identity(file) in own}
        unknown = {name: file for name, file in here.items() if name not in digests}
        digests |= sha256_of_each(unknown, "Hash checkpoint", progress)
        other = [name for name in wanted if digests[name] != wanted[name]]
    if other:
        raise UserError(
            f"expected the checkpoint that the bundle was made from in {checkpoint.folder}, found another "
            f"{other[0]}; give the right one with --model, or export again"
        )


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino
