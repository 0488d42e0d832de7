"""A locale without most characters: nothing is refused for that, and what cannot be shown is escaped."""

from pathlib import Path

import pytest
from installed_command import IMAGES, refused, run
from short_checkpoint import write_short_checkpoint

LOCALES = {
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII for text alone": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
}


@pytest.mark.parametrize("locale", LOCALES)
def test_tables_and_errors(locale: str) -> None:
    said = run("flops", "--list", environment=LOCALES[locale]).stdout
    assert "llama, 32 \\xd7 4096" in said and said.isascii()
    line = refused("flops", "nö", environment=LOCALES[locale])
    assert line.isascii() and "found no folder n\\" in line


@pytest.mark.long
def test_an_export_and_an_answer(tmp_path: Path) -> None:
    """Files are UTF-8 whatever the locale is."""
    write_short_checkpoint(tmp_path / "short")
    here = {"folder": tmp_path, "environment": LOCALES["ASCII"]}
    run("--model", "short", "--output", "out", "--dtype", "fp32", **here)
    run("inspect", "out", **here)
    answer = run(
        "run", "out", "--image", IMAGES / "mat.png", "--prompt", "What?", "--max-new-tokens", "3", **here
    )
    assert answer.stdout.isascii()
