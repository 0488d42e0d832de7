"""The installed command, started as a user starts it."""

import os
import subprocess
import sys
from pathlib import Path

COMMAND = Path(sys.executable).with_name("asap-export")
IMAGES = Path(__file__).parents[1] / "examples" / "images"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(
    *arguments: str | Path,
    folder: Path | None = None,
    status: int = 0,
    text: str = "",
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``asap-export`` in ``folder`` with ``text`` on stdin; it must exit with ``status``.

    ``environment`` is added to that of the tests, which is offline.
    """
    done = subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        input=text,
        env=ENVIRONMENT | (environment or {}),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def refused(
    *arguments: str | Path,
    folder: Path | None = None,
    text: str = "",
    environment: dict[str, str] | None = None,
) -> str:
    """The one line that wrong input gets: exit status 2, nothing on stdout, no traceback."""
    return the_refusal(run(*arguments, folder=folder, status=2, text=text, environment=environment))


def the_refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The only line that a command printed."""
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


def listing(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
