"""The command line within this process: a start of its own would import PyTorch for seconds each time."""

import io
import logging
import subprocess
import sys
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from installed_command import listing, the_refusal

from asap_export.cli.app import exit_status


def run(
    *arguments: str | Path, folder: Path | None = None, status: int = 0, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run ``asap-export`` in ``folder`` with ``text`` on stdin; it must end with ``status``.

    ``installed_command.run`` does the same in a process of its own.
    """
    out, errors = io.StringIO(), io.StringIO()
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # as the installed command has it
    try:
        with (
            chdir(folder or Path.cwd()),
            patch.object(sys, "stdin", io.StringIO(text)),
            redirect_stdout(out),
            redirect_stderr(errors),
            warnings.catch_warnings(action="ignore"),
        ):
            found = exit_status([str(argument) for argument in arguments])
    finally:
        logging.disable(disabled)
    done = subprocess.CompletedProcess(arguments, found, out.getvalue(), errors.getvalue())
    assert found == status, f"{found}\n{done.stdout}\n{done.stderr}"
    return done


def refused(*arguments: str | Path, folder: Path | None = None, text: str = "") -> str:
    """The one line that wrong input gets: exit status 2, nothing on stdout, no traceback, nothing left."""
    before = listing(folder) if folder else None
    line = the_refusal(run(*arguments, folder=folder, text=text, status=2))
    if folder:
        assert listing(folder) == before
    return line
