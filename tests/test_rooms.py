"""The rule that keeps the house in order: a room imports only itself and rooms to its left."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "asap_export"

FOUNDATION = ("argument_types", "cuda", "errors", "memory", "progress", "spec")
ROOMS = (
    "scenes", "pruning", "checkpoint", "model", "graph", "bundle", "engine", "runtime", "parity", "explain",
    "report", "lmms", "exporter", "evaluation", "bench", "serving", "cli", "__main__",
)  # fmt: skip
# These open finished bundles on machines that have no torch.
NARROW = {
    "bundle": ("bundle",),
    "engine": ("bundle", "engine"),
    "runtime": ("bundle", "runtime"),
    "serving": ("bundle", "runtime", "serving"),
}
# Without torch and with nothing of ours but one another and the foundation, so every room may read them.
EVERYONES = ("pruning.config", "pruning.flops", "model.anyres")

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"  # of no room: it hands out names of several, each when asked for
}


def imported(module: str, path: Path) -> Iterator[str]:
    """Our own modules that a module's text imports anywhere, in functions and for type checking too."""
    package = ["asap_export", *module.split(".")]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            submodules = [f"{origin}.{alias.name}" for alias in node.names]
            named = [name if name.removeprefix("asap_export.") in MODULES else origin for name in submodules]
        else:
            continue
        yield from (name.removeprefix("asap_export.") for name in named if name.startswith("asap_export"))


def allowed(module: str, other: str) -> bool:
    own, theirs = module.partition(".")[0], other.partition(".")[0]
    if theirs in FOUNDATION:
        return True
    if own in FOUNDATION:
        return False
    if other in EVERYONES or module in EVERYONES:
        return other in EVERYONES
    return theirs in NARROW.get(own, ROOMS[: ROOMS.index(own) + 1])


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_rooms_to_its_left(module: str) -> None:
    assert module.partition(".")[0] in (*FOUNDATION, *ROOMS), "a new room needs a place in the order"
    wrong = [other for other in imported(module, MODULES[module]) if not allowed(module, other)]
    assert not wrong, f"{module} may not import {', '.join(wrong)}"


@pytest.mark.parametrize(
    "module",
    [
        "asap_export",
        "asap_export.bundle",
        "asap_export.exporter",
        "asap_export.runtime",
        "asap_export.runtime.onnxruntime_session",
        "asap_export.report",
        "asap_export.cli.app",
        *(f"asap_export.{name}" for name in EVERYONES),
    ],
)
def test_what_needs_no_torch_imports_none(module: str) -> None:
    program = f"import sys, {module}; print({{'torch', 'transformers'}} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "set()"


def test_no_modules_import_one_another_in_a_circle() -> None:
    found = {
        module: set(imported(module, path)) & MODULES.keys() - {module} for module, path in MODULES.items()
    }
    TopologicalSorter(found).prepare()  # raises where there is one


def test_the_rule_tells_left_from_right() -> None:
    assert allowed("graph.trace", "model.decoder") and allowed("runtime.chat", "model.anyres")
    assert not allowed("model.decoder", "graph.trace") and not allowed("runtime.chat", "model.decoder")
    assert not allowed("pruning.config", "pruning.mask") and not allowed("errors", "pruning.config")


def test_only_the_command_line_prints() -> None:
    for module, path in MODULES.items():
        if module.partition(".")[0] == "cli":
            continue
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"], module
