"""Where a checkpoint comes from: the built-in demo, a local folder, or the Hugging Face hub."""

import re
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from asap_export.errors import UserError

__all__ = ["DEMO", "Source", "locate"]

DEMO = Path(__file__).resolve().parent.parent / "demo"
SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """A checkpoint's folder on this machine, and what to call it: ``revision`` is the hub commit or None."""

    folder: Path
    name: str
    revision: str | None = None

    def fetch(self, files: list[str]) -> None:
        """Download the named files beside the small ones; a local folder is left as it is."""
        if self.revision is not None:
            _snapshot(self.name, files, self.revision)


def locate(source: str | Path | None) -> Source:
    """The folder of a checkpoint, with all its files but the weights where it is on the hub.

    ``source`` is a folder, a hub id ("owner/name"), or None: the demo. Raises UserError where none is.
    """
    if source is None:
        return Source(DEMO, "demo")
    folder = Path(source)
    if folder.is_dir():
        return Source(folder, str(source))
    if folder.exists():
        raise UserError(f"expected a checkpoint folder or a hub id, found the file {source}; give its folder")
    if isinstance(source, Path) or not HUB_ID.fullmatch(source):
        raise UserError(f"expected a checkpoint folder or a hub id (owner/name), found no folder {source}")
    snapshot = _snapshot(source, SMALL_FILES)
    return Source(snapshot, source, snapshot.name)


def _snapshot(repository: str, patterns: list[str], revision: str | None = None) -> Path:
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise UserError(
            f"expected the folder {repository} or to reach it on the Hugging Face hub, found neither; "
            "check the name and the network, or give a local folder"
        ) from error
    except Exception as error:  # the hub client passes its transport's exceptions on, which vary by version
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"expected to download {repository} from the Hugging Face hub, found: {reason}"
        ) from error
