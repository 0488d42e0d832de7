"""Downloads from the Hugging Face hub: shown as our own progress, and each way to fail gets a line of its own."""

import errno
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # documented, not declared
from rich.filesize import decimal

from asap_export.errors import UserError
from asap_export.progress import Progress, ProgressCallback, no_progress

__all__ = ["download_small", "download_weights"]


def download_small(repository: str, patterns: list[str], revision: str | None) -> Path:
    """The files at the top of a repository that match ``patterns``; returns the snapshot's folder.

    The folder is named after the commit that ``revision`` (a branch, a tag or a commit; None is "main") stands
    for. Without network, or with HF_HUB_OFFLINE set, it is what the cache holds. Raises UserError.
    """
    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=["*/*"],  # folders hold other formats, with a config.json of their own
            tqdm_class=_Silent,
        )
    except Exception as error:  # the hub client passes its transport's exceptions on, which vary by version
        raise _refusal(error, repository, revision) from error
    return Path(folder)


def download_weights(
    repository: str, files: list[str], commit: str, folder: Path, progress: ProgressCallback = no_progress
) -> None:
    """Download ``files`` of a commit into its snapshot ``folder``; those that are there are not asked for.

    Space is checked before the first byte. The hub client keeps finished files only, so files come one after
    the other: an interruption costs what was loaded of one of them. Raises UserError.
    """
    absent = [name for name in files if not (folder / name).is_file()]
    if not absent:
        return
    try:
        size = _size(repository, absent, commit)
        _require_space(repository, size)
        _download(repository, absent, commit, _Bytes(repository, size, progress))
    except UserError:
        raise
    except Exception as error:  # as above
        raise _refusal(error, repository, commit) from error


def _size(repository: str, files: list[str], commit: str) -> int:
    """Bytes of the files that the cache lacks. Raises UserError where the repository lacks one."""
    planned = huggingface_hub.snapshot_download(
        repository, revision=commit, allow_patterns=files, tqdm_class=_Silent, dry_run=True
    )
    if lacking := sorted(set(files) - {file.filename for file in planned}):
        raise UserError(
            f"expected the weights {lacking[0]} in {repository} at {commit[:12]} on the hub, found no such file; "
            "give a repository with safetensors weights, or convert this one with transformers' save_pretrained"
        )
    return sum(file.file_size or 0 for file in planned if file.will_download)


def _require_space(repository: str, size: int) -> None:
    free = shutil.disk_usage(_existing(Path(constants.HF_HUB_CACHE))).free
    if free < size:
        raise UserError(_disk_full(f"{decimal(size)} for the weights of {repository}", free))


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _disk_full(needed: str, free: int) -> str:
    return (
        f"disk full: needed {needed}, free {decimal(free)} in {constants.HF_HUB_CACHE}; "
        "free space or set HF_HOME to a folder on a larger disk"
    )


def _download(repository: str, files: list[str], commit: str, bytes_done: "_Bytes") -> None:
    """In a thread of its own, so that an interrupt ends the client's own threads, which would go on."""

    bars = bytes_done.bar_class()

    def run() -> None:
        huggingface_hub.snapshot_download(
            repository, revision=commit, allow_patterns=files, tqdm_class=bars, max_workers=1
        )

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(run)
        try:
            running.result()
        except BaseException:
            bytes_done.stopped.set()
            raise


class _Silent(tqdm):
    """A bar that is never drawn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"disable": True})  # type: ignore[no-untyped-call]


class _Bytes:
    """How many of ``size`` bytes are here, told to ``progress``."""

    def __init__(self, repository: str, size: int, progress: ProgressCallback) -> None:
        self.stage = f"Download {repository}"
        self.size = size
        self.progress = progress
        self.stopped = Event()
        self.lock = Lock()
        self.furthest = 0

    def bar_class(self) -> type[_Silent]:
        """A class of bars for the hub client, which makes several: of files, of bytes received, of bytes written.

        Of the bars that count bytes, the furthest is told.
        """
        told = self

        class Bar(_Silent):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.counts_bytes = kwargs.get("unit") == "B"

            def update(self, n: float | None = 1) -> None:
                if told.stopped.is_set():
                    raise InterruptedError(errno.EINTR, "interrupted")
                with told.lock:
                    self.n += n or 0
                    if self.counts_bytes:
                        told.tell(int(self.n))

        return Bar

    def tell(self, done: int) -> None:
        self.furthest = max(done, self.furthest)
        fraction = min(1.0, self.furthest / self.size) if self.size else None
        self.progress(Progress(self.stage, fraction, f"{decimal(self.furthest)} of {decimal(self.size)}"))


def _refusal(error: Exception, repository: str, revision: str | None) -> UserError:
    """The one line for what went wrong: the hub client nests the reason in errors of its own."""
    causes = list(_causes(error))

    def found(*kinds: type[BaseException]) -> Any:
        return next((cause for cause in causes if isinstance(cause, kinds)), None)

    at = f"{repository} at {revision}" if revision else repository
    page = f"{constants.ENDPOINT}/{repository}"
    if found(GatedRepoError):
        return UserError(
            f"expected access to {repository}, found a gated repository; accept its terms on {page} "
            "and log in with `hf auth login`"
        )
    if found(RevisionNotFoundError):
        return UserError(
            f"expected {at} on the Hugging Face hub, found no such branch, tag or commit; "
            f"choose another --revision from {page}/commits"
        )
    if found(RepositoryNotFoundError):
        return UserError(
            f"expected the folder {repository} or a repository of that name on the Hugging Face hub, found "
            "neither; check the name, and if it is private, log in with `hf auth login`"
        )
    if found(OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        return UserError(
            f"expected the folder {repository}, or, as HF_HUB_OFFLINE is set, all files of {at} in "
            f"{constants.HF_HUB_CACHE}, found neither; unset it to download them, or give a local folder"
        )
    if full := next((cause for cause in causes if getattr(cause, "errno", None) == errno.ENOSPC), None):
        free = shutil.disk_usage(_existing(Path(constants.HF_HUB_CACHE))).free
        return UserError(_disk_full(f"more for {repository} ({type(full).__name__})", free))
    if answer := found(HfHubHTTPError):
        return _answered(answer.response.status_code, at)
    if found(HFValidationError) or any(getattr(cause, "filename", None) for cause in causes):
        return UserError(f"expected to download {at} from the Hugging Face hub, found: {_first_line(error)}")
    # What is left is the connection. Its errors are of an HTTP library, which depends on the version of the hub
    # client; the innermost says what happened.
    reason = _first_line(causes[-1])
    return UserError(
        f"expected the folder {repository} or to reach it at {constants.ENDPOINT}, found: {reason}; "
        "check the network and run the command again (finished files are kept), or give a local folder"
    )


def _answered(status: int, at: str) -> UserError:
    """What an HTTP status other than the named cases means."""
    advice = {
        401: "the token is not valid: log in again with `hf auth login`, or unset HF_TOKEN",
        403: "the token may not read this repository: log in with another one with `hf auth login`",
        429: "these are too many requests: wait some minutes, or log in with `hf auth login`",
    }.get(status, "try again later, or give a local folder")
    return UserError(f"expected {at} from {constants.ENDPOINT}, found HTTP status {status}; {advice}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
