"""Where a checkpoint comes from: the built-in demo, a local folder, or the Hugging Face hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from asap_export.errors import UserError
from asap_export.progress import ProgressCallback, no_progress

__all__ = ["DEMO", "SMALL_FILES", "Location", "locate"]

DEMO = Path(__file__).resolve().parent.parent / "demo"
SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Location:
    """A checkpoint's folder on this machine, and what to call it: ``revision`` is the hub commit or None."""

    folder: Path
    name: str
    revision: str | None = None

    def fetch(self, files: list[str], progress: ProgressCallback = no_progress) -> None:
        """Download the named files beside the small ones; a local folder is left as it is."""
        if self.revision is not None:
            from asap_export.checkpoint.hub import download_weights  # an extra, and slow to import

            download_weights(self.name, files, self.revision, self.folder, progress)


def locate(
    source: str | Path | None, revision: str | None = None, files: tuple[str, ...] = SMALL_FILES
) -> Location:
    """The folder of a checkpoint, with all its files but the weights where it is on the hub.

    ``source`` is a folder, a hub id ("owner/name"), or None: the demo. ``revision`` is a branch, a tag or a
    commit of a hub id, None its main branch; of its files, those that match ``files`` are downloaded. Raises
    UserError where there is no checkpoint, or a revision would do nothing.
    """
    if revision is not None and (source is None or Path(source).exists()):
        found = "the built-in demo" if source is None else f"the local {source}"
        raise UserError(f"expected --revision with a hub id only, found {found}; leave it out")
    if source is None:
        return Location(DEMO, "demo")
    folder = Path(source)
    if folder.is_dir():
        _check_kinds(folder)
        return Location(folder, str(source))
    if folder.exists():
        raise UserError(f"expected a checkpoint folder or a hub id, found the file {source}; give its folder")
    if isinstance(source, Path) or not HUB_ID.fullmatch(source):
        raise UserError(f"expected a checkpoint folder or a hub id (owner/name), found no folder {source}")
    from asap_export.checkpoint.hub import download_small  # an extra, and slow to import

    snapshot = download_small(source, list(files), revision)
    return Location(snapshot, source, snapshot.name)


def _check_kinds(folder: Path) -> None:
    """Raise UserError for a pipe or a device, which whoever reads it would wait for without an end."""
    for path in sorted(folder.iterdir()):
        if path.is_fifo() or path.is_char_device() or path.is_block_device() or path.is_socket():
            raise UserError(
                f"expected files in the checkpoint {folder}, found a pipe or a device: {path.name}; remove it"
            )
