"""One step after the other, each with its result or the reason why it has none, kept in a file as they come."""

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """What is measured: on PyTorch's ``device``, ``layers`` of the model of real size (None: all), ``rounds`` that
    count, the user's bundle, and the folder that keeps what was made for ``bench`` (None: none)."""

    device: str
    layers: int | None
    rounds: int
    bundle: Path | None
    work: Path | None = None

    @property
    def rehearsal(self) -> bool:
        return self.device == "cpu"


class Absent(Exception):
    """Something that a step needs is not on this machine; the message says what."""


class Steps:
    """The steps of a part. The file is whole at any moment: who ends the process loses the running step only."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.found: dict[str, dict[str, Any]] = {}

    def run(self, name: str, step: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """The step's result, whose "said" is its line in the report; None where it failed or something lacks."""
        self._note(name, {"state": "running"})
        result = None
        try:
            result = step()
            self._note(name, {"state": "done", "result": result})
        except Absent as missing:
            self._note(name, {"state": "absent", "reason": str(missing)})
        except ImportError as missing:
            self._note(name, {"state": "absent", "reason": f"{missing} (needed for this step)"})
        except Exception as error:
            trace = traceback.format_exc().splitlines()[-12:]
            self._note(name, {"state": "failed", "reason": one_line(error), "traceback": trace})
        return result

    def _note(self, name: str, entry: dict[str, Any]) -> None:
        self.found[name] = entry
        write_json(self._file, self.found)


def one_line(error: BaseException) -> str:
    """An exception in a line: CUDA's go on with advice."""
    said = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {said[0].strip() if said else 'without a message'}"[:400]


def write_json(file: Path, content: Any) -> None:
    """Whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)
