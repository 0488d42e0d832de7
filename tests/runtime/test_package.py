"""The package as a user imports it."""

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import asap_export
from asap_export.errors import UserError
from asap_export.runtime import model
from asap_export.runtime.session import Sessions


def modules_after(statement: str) -> set[str]:
    program = f"{statement}; import sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "onnx", "onnxruntime", "numpy", "PIL"}
    assert not heavy & modules_after("import asap_export")


def test_sessions_do_without_torch() -> None:
    statement = (
        "import asap_export.runtime.providers, asap_export.runtime.graphs, asap_export.runtime.sampling"
    )
    assert "torch" not in modules_after(statement)


def test_the_package_knows_its_version() -> None:
    assert asap_export.__version__ == version("asap-export")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = asap_export.nothing


def test_the_package_has_its_names_before_they_are_asked_for() -> None:
    named = "import asap_export; assert set(asap_export.__all__) <= set(dir(asap_export))"
    assert "asap_export.errors" not in modules_after(named)
    for name in asap_export.__all__:
        assert getattr(asap_export, name)
    assert asap_export.UserError is UserError


@pytest.mark.long
def test_type_checkers_know_the_names(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("""
import asap_export

bundle = asap_export.export(output="out/", keep=40)
model = asap_export.load(bundle.path)
answer: asap_export.Answer = model.generate([b""], "What?", temperature=0.5)
pieces: list[str] = list(model.chat().stream((), "What?", keep=3))
model.generate_batch([asap_export.Request(["a.png"], "What?", 8)])
model.generate([], "What?", temprature=1)
""")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    [error] = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert "program.py:9" in error and "temprature" in error


def test_an_export_takes_what_does_not_contradict_itself(tmp_path: Path) -> None:
    from asap_export.pruning.config import PruningConfig

    with pytest.raises(UserError, match="expected dense or pruning, found both"):
        asap_export.export(output=tmp_path / "out", dense=True, pruning=PruningConfig())
    with pytest.raises(UserError, match="expected keep of at least 1 visual token, found 0"):
        asap_export.export(output=tmp_path / "out", keep=0)
    with pytest.raises(UserError, match="expected quantize int4 or int8, found int2"):
        asap_export.export(output=tmp_path / "out", quantize="int2")
    assert not (tmp_path / "out").exists()


def test_loading_what_is_no_bundle_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="expected a bundle folder"):
        asap_export.load(tmp_path / "nothing")


def test_a_bundle_replaced_while_it_is_loaded_is_refused(
    pruned_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = shutil.copytree(pruned_bundle, tmp_path / "a.bundle")
    open_sessions = model.open_sessions

    def meanwhile(*arguments: Any) -> Sessions:
        sessions = open_sessions(*arguments)
        bundle.rename(tmp_path / "before.bundle")
        shutil.copytree(pruned_bundle, bundle)
        return sessions

    monkeypatch.setattr(model, "open_sessions", meanwhile)
    with pytest.raises(UserError, match=r"stay as it is while it is loaded, found another manifest\.json"):
        asap_export.load(bundle, provider="cpu")
