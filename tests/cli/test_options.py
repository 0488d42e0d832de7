"""The options: those of an export and of the program, their help, and what the documentation says of them."""

import inspect
import os
import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
from installed_command import COMMAND, ENVIRONMENT

from asap_export import __version__
from asap_export.cli.app import exit_status
from asap_export.cli.export import EXPORT_OPTIONS, export_command, program
from asap_export.exporter import ExportRequest

DOCUMENT = Path(__file__).parents[2] / "docs" / "export.md"
COMMANDS = ("export", "run", "verify", "explain", "eval", "bench", "inspect", "flops", "env")


def flags(name: str) -> str:
    """The options that ``asap-export [name] --help`` lists, at 80 columns."""
    command = [COMMAND, *filter(None, [name]), "--help"]
    environment = ENVIRONMENT | {"COLUMNS": "80", "TERMINAL_WIDTH": "80"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def names() -> dict[str, str]:
    """An export's options as the definition has them: long name by parameter."""
    found = {}
    for parameter in EXPORT_OPTIONS:
        [option] = parameter.annotation.__metadata__
        declared = [option.default, *(option.param_decls or ())]
        found[parameter.name] = next(each for each in declared if isinstance(each, str) and each[:2] == "--")
    return found


def test_every_setting_of_a_request_is_an_option() -> None:
    made = {"budget", "pruning", "quantization", "cpu_passes", "compute_capabilities"}
    assert {field.name for field in fields(ExportRequest)} - made <= set(names())
    for parameter in EXPORT_OPTIONS:
        [option] = parameter.annotation.__metadata__
        assert option.help and option.help.endswith("."), parameter.name
        assert option.rich_help_panel and option.metavar, parameter.name


def test_export_is_another_name_of_the_program_without_a_command() -> None:
    own = set(inspect.signature(export_command).parameters)
    assert set(inspect.signature(program).parameters) - own == {"context", "version"}


def test_the_documentation_has_every_option_of_an_export_and_no_other() -> None:
    rows = re.findall(r"^\| (`--.*?) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    documented = {flag for row in rows for flag in re.findall(r"--[a-z0-9-]+", row)}
    defined = {flag for option in names().values() for flag in option.split("/")}
    positive = {flag.split("/")[0] for flag in names().values() if "/" in flag}
    assert documented - {"--plan", "--json"} == defined - positive, (
        "of two forms the table has the one that changes"
    )


@pytest.mark.parametrize("command", ["", "export"])
def test_help_fits_80_columns_with_every_option_in_full(command: str) -> None:
    said = flags(command)
    assert max(map(len, said.splitlines())) <= 80
    assert "…" not in said
    for option in names().values():
        for flag in option.split("/"):
            assert re.search(rf"{flag}\b", said), flag


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(["--version"]) == 0
    assert capsys.readouterr().out == f"asap-export {__version__}\n"


@pytest.mark.parametrize("where", [["-q", "env"], ["env", "--quiet"]])
def test_quiet_and_verbose_stand_before_or_behind_the_command(
    where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(where) == 0
    assert exit_status([*where, "-v"]) == 2
    assert "expected --quiet or --verbose, found both" in capsys.readouterr().err
    assert exit_status(["-v", "env"]) == 0, "what an earlier command line chose is forgotten"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("asap-export --lay", {"--layers-per-engine"}),
        ("asap-export export --lay", {"--layers-per-engine"}),
        ("asap-export ver", {"verify"}),
        ("asap-export verify --qui", {"--quiet"}),
        ("asap-export --engine t", {"trt"}),
    ],
)
def test_a_shell_completes_commands_options_and_values(typed: str, offered: set[str]) -> None:
    asked = {
        "_ASAP_EXPORT_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }
    done = subprocess.run([COMMAND], env=os.environ | asked, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


def test_completion_is_installed_where_the_shell_looks(tmp_path: Path) -> None:
    home = ENVIRONMENT | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [COMMAND, "--install-completion", "bash"], env=home, capture_output=True, text=True, check=True
    )
    assert "bash completion installed" in done.stdout
    script = next(path for path in tmp_path.rglob("*") if path.is_file() and "asap-export" in path.name)
    assert "_ASAP_EXPORT_COMPLETE=complete_bash" in script.read_text()


def test_quiet_measures_nothing_so_it_may_stand_beside_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(["bench", "--from", "nothing.json", "-q"]) == 2
    assert "expected a measurement's JSON in nothing.json" in capsys.readouterr().err
