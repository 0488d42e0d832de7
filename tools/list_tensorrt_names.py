"""Write tests/engine/tensorrt_names.json: what TensorRT's Python interface has, version by version.

    pip download --no-deps tensorrt-stubs==10.13.0.35.1 tensorrt-cu13-bindings==11.4.0.106
    python tools/list_tensorrt_names.py tensorrt_stubs-*.whl tensorrt_cu13_bindings-*.whl

TensorRT's own libraries are not to be had everywhere, but type stubs and bindings are. Stubs are read. Bindings
are a binary: of the names that stubs or TensorRT-RTX know, those are listed that it holds as a text.
"""

import json
import re
import sys
import zipfile
from pathlib import Path

import tensorrt_rtx

PLACE = Path(__file__).resolve().parents[1] / "tests" / "engine" / "tensorrt_names.json"
# Classes of which the project uses something.
CLASSES = (
    "Builder", "BuilderFlag", "DataType", "ExecutionContextAllocationStrategy", "IBuilderConfig", "ICudaEngine",
    "IExecutionContext", "ILogger", "IOutputAllocator", "IProgressMonitor", "IStreamWriter", "Logger",
    "ProfilingVerbosity", "Runtime", "TensorIOMode", "TensorLocation",
)  # fmt: skip

Names = dict[str, list[str]]


def of_stubs(wheel: Path) -> Names:
    """Members of each class, those of its bases too; by lines, for the file is no Python that could be parsed."""
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read("tensorrt_bindings/tensorrt.pyi").decode().splitlines()
    own: dict[str, set[str]] = {}
    bases: dict[str, list[str]] = {}
    name = ""
    for line in lines:
        if found := re.match(r"class (\w+)(?:\((.*)\))?:", line):
            name = found[1]
            own[name], bases[name] = set(), re.findall(r"\w+", found[2] or "")
        elif name and (found := re.match(r"    (?:def |class )?(\w+)\s*[:(]", line)):
            own[name].add(found[1])

    def members(name: str) -> set[str]:
        return own.get(name, set()).union(*(members(base) for base in bases.get(name, ())))

    return {name: public(members(name)) for name in CLASSES}


def of_bindings(wheel: Path, known: Names) -> Names:
    with zipfile.ZipFile(wheel) as archive:
        binary = archive.read("tensorrt_bindings/tensorrt.so")

    def holds(name: str) -> bool:  # linkers let a text be the end of a longer one
        return name.encode() + b"\0" in binary

    return {name: [each for each in members if holds(each)] for name, members in known.items() if holds(name)}


def public(names: set[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("_"))


def main() -> None:
    stubs, bindings = (Path(argument) for argument in sys.argv[1:])
    old = of_stubs(stubs)
    new = {name: public({*old[name], *dir(getattr(tensorrt_rtx, name))}) for name in CLASSES}
    found = {stubs.name.split("-")[1]: old, bindings.name.split("-")[1]: of_bindings(bindings, new)}
    PLACE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
