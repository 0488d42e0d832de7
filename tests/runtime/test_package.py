"""The package as a user imports it."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import asap_export
from asap_export.errors import UserError


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


def test_loading_what_is_no_bundle_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="expected a bundle folder"):
        asap_export.load(tmp_path / "nothing")
