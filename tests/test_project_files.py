"""Files of the project that say the same in two places do."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_hooks_run_what_make_lint_runs() -> None:
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    hooks = [hook["entry"] for hook in repository["hooks"]]
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)
    assert recipe
    commands = [
        line.strip().split("xargs ")[-1].replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()
    ]
    assert hooks == commands


def test_one_version() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert f"project(asap_runtime VERSION {version} " in read("engines/cpp/CMakeLists.txt")
    newest = re.search(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert newest and newest[1] == version


def test_every_tool_of_development_has_a_tested_version() -> None:
    extras = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
    pinned = {normal(line.split("==")[0]) for line in read("constraints.txt").splitlines() if "==" in line}
    needed = {normal(re.split(r"[\[><=;]", named)[0]) for named in extras["dev"]}
    assert needed - {"asap-export"} <= pinned


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
