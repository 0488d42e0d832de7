"""What has been answered so far: a folder that one evaluation writes, and a later call continues."""

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from asap_export.bundle.writer import write_durably
from asap_export.errors import UserError

__all__ = ["Journal"]

_SETTINGS, _RECORDS = "settings.json", "records.jsonl"

Record = dict[str, Any]


class Journal:
    """The records of an evaluation in ``folder``, one line for each question, written picture by picture.

    ``pictures`` holds what was there already: per picture, in order, its records. A picture whose lines are not
    all there, because writing was interrupted, counts as unanswered and is cut off. Raises UserError where the
    folder holds an evaluation with other settings (unless ``overwrite``), something else, or is being written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        self.folder = folder
        self.pictures: list[list[Record]] = []
        text = json.dumps(dict(settings), indent=2, ensure_ascii=False) + "\n"
        fresh = self._is_fresh(json.loads(text), overwrite)
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / _RECORDS).open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise UserError(
                f"expected no other evaluation to write {folder}, found one; wait for it, or choose another "
                "--output"
            ) from error
        if fresh:
            self._file.truncate(0)
            write_durably(folder / _SETTINGS, text)
        self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, records: Sequence[Record]) -> None:
        """The records of the next picture; on disk when this returns."""
        with _writing(self.folder):
            for left, record in zip(range(len(records) - 1, -1, -1), records, strict=True):
                line = json.dumps({**record, "left": left}, ensure_ascii=False)
                self._file.write(line.encode() + b"\n")
            self._file.flush()
        self.pictures.append([dict(record) for record in records])

    def _is_fresh(self, settings: dict[str, Any], overwrite: bool) -> bool:
        """Whether the folder is to be begun, and not continued."""
        place = self.folder / _SETTINGS
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"expected a folder as --output, found the file {self.folder}; choose another")
        if not place.is_file() and self._holds_others():
            raise UserError(
                f"expected an empty folder or an evaluation at {self.folder}, found something else; "
                "choose another --output"
            )
        if overwrite or not place.is_file():
            return True
        _compare(self.folder, _settings(place), settings)
        return False

    def _holds_others(self) -> bool:
        """Whether there are files that no evaluation left; one that was killed at once left empty records."""
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        return any(path.name != _RECORDS or path.stat().st_size for path in there)

    def _read(self) -> None:
        """Take over the pictures that are complete, and cut the file behind them."""
        end = position = 0
        picture: list[Record] = []
        self._file.seek(0)
        for line in self._file:
            position += len(line)
            try:
                record = json.loads(line)
                left = record.pop("left")
            except (ValueError, KeyError, AttributeError):
                break
            if not line.endswith(b"\n"):
                break
            picture.append(record)
            if left == 0:
                self.pictures.append(picture)
                picture, end = [], position
        self._file.truncate(end)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raise UserError where the system refuses to write."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"expected to write to {folder}, found: {error.strerror}; free space, or choose another --output"
        ) from error


def _settings(place: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"expected JSON in {place}, found something else; give --overwrite") from error
    return found


def _compare(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise UserError where an evaluation was begun with other settings."""
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            raise UserError(
                f"expected the settings with which {folder} was begun, found another {name.replace('_', ' ')}: "
                f"{_short(now.get(name))} instead of {_short(before.get(name))}; give --overwrite to begin anew, "
                "or another --output"
            )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
