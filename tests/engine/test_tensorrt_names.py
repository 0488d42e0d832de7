"""Every name of TensorRT's that the project uses exists in TensorRT 10.13 and 11.4, and in TensorRT-RTX here.

TensorRT itself is installed on few machines: tools/list_tensorrt_names.py has written its names to a file.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asap_export.engine.compile
import asap_export.engine.monitor
import asap_export.runtime.tensorrt_session

VERSIONS: dict[str, dict[str, list[str]]] = json.loads(
    Path(__file__).with_name("tensorrt_names.json").read_text()
)
MODULES = (asap_export.engine.compile, asap_export.engine.monitor, asap_export.runtime.tensorrt_session)
# What our variables hold.
KINDS = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "self._engine": "ICudaEngine",
    "self._runtime": "Runtime",
}
BINDINGS = ("trt", "tools.trt", "self._trt")
# Asked for before it is used: TensorRT 10.13 has none, and writes a whole engine at once.
OPTIONAL = {("Builder", "build_serialized_network_to_stream"), ("IStreamWriter", None)}


def used() -> Iterator[tuple[str, str | None]]:
    """Each class and member that stands in the code, such as ("BuilderFlag", "TF32")."""
    for module in MODULES:
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            holder, member = ast.unparse(node.value), node.attr
            if holder in KINDS:
                yield KINDS[holder], member
            elif holder in BINDINGS and member[0].isupper():
                yield member, None
            elif (front := holder.rpartition("."))[0] in BINDINGS and member != "__init__":
                yield front[2], member


def test_what_is_used_is_found_in_the_code() -> None:
    assert {("BuilderFlag", "TF32"), ("Runtime", None), ("ICudaEngine", "get_tensor_name")} <= set(used())
    assert len(set(used())) > 30


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_is_in(version: str) -> None:
    known = VERSIONS[version]
    missing = {
        (kind, member)
        for kind, member in used()
        if kind not in known or (member is not None and member not in known[kind])
    }
    assert missing <= OPTIONAL


def test_every_name_is_in_the_tensorrt_rtx_that_is_installed() -> None:
    trt: Any = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    missing = {
        (kind, member)
        for kind, member in used()
        if not hasattr(trt, kind) or (member is not None and not hasattr(getattr(trt, kind), member))
    }
    assert missing == set()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_type_of_tensors_is_in(version: str) -> None:
    assert set(asap_export.runtime.tensorrt_session._TORCH_NAMES) <= set(VERSIONS[version]["DataType"])
