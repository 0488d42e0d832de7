"""A remedy can be followed only where the option that it names is one."""

import ast
import re
from pathlib import Path

import pytest
import typer

import asap_export
from asap_export.cli.app import app

PACKAGE = Path(asap_export.__file__).parent
# The options of another program, lmms-eval, have underscores and are named in its room alone.
OWN = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "lmms"]


def every_option() -> set[str]:
    program = typer.main.get_command(app)
    commands = [program, *program.commands.values()]
    return {
        name for command in commands for each in command.params for name in each.opts + each.secondary_opts
    }


def texts_of_errors(path: Path) -> list[str]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [
        ast.unparse(call) for call in calls if getattr(call.func, "id", "") in ("UserError", "BundleError")
    ]


@pytest.mark.parametrize("path", OWN, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_errors_name_options_that_exist(path: Path) -> None:
    named = {name for text in texts_of_errors(path) for name in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)}
    assert named <= every_option()


def test_errors_name_options_at_all() -> None:
    assert any("--keep" in text for path in OWN for text in texts_of_errors(path))
