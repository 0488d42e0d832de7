"""The line that Python and C++ print for a mistake."""

from collections.abc import Callable
from pathlib import Path

import pytest

from asap_export.errors import UserError
from cpp.programs import infer


def python_line(act: Callable[[], object]) -> str:
    """What the command line prints for the mistake in ``act``, as it does."""
    with pytest.raises(UserError) as refusal:
        act()
    return f"error: {' '.join(refusal.value.message.split())}\n"


def cpp_line(*arguments: str | Path, text: str = "") -> str:
    done = infer(*arguments, text=text, status=2)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and done.stderr.endswith("\n")
    return done.stderr
