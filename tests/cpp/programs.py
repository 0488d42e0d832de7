"""The C++ programs, as ``make cpp`` builds them."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

BUILD = Path(os.environ.get("ASAP_CPP_BUILD", Path(__file__).parents[2] / "out" / "cpp" / "release"))
INFER = BUILD / "asap-infer"
OPENVINO_BACKEND = BUILD / "libasap_openvino.so"  # none where CMake found no OpenVINO

needs_programs = pytest.mark.skipif(not INFER.exists(), reason="the C++ runtime is not built: make cpp")


def infer(
    *arguments: str | Path, folder: Path | None = None, text: str = "", status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run ``asap-infer`` in ``folder`` with ``text`` on stdin; it must exit with ``status``."""
    command = [INFER, *arguments]
    done = subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def answers(*arguments: str | Path, text: str = "") -> list[dict[str, Any]]:
    """The JSON documents that ``asap-infer --json`` writes, one for each turn."""
    said, decoder, found = infer(*arguments, "--json", text=text).stdout, json.JSONDecoder(), []
    while said := said.lstrip():
        document, end = decoder.raw_decode(said)
        found.append(document)
        said = said[end:]
    return found
