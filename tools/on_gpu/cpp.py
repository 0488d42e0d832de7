"""A bundle in C++ on the device: what ``asap-infer --provider cuda`` answers, beside Python's answer."""

import json
import os
import statistics
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parents[2] / "out" / "cpp" / "release" / "asap-infer"
SECONDS = 120


def answer_in_cpp(bundle: Path, image: Path, question: str, tokens: int, repeat: int) -> dict[str, Any]:
    """Tokens, kept places and medians in ms of all answers but the first; why there are none where it fails."""
    if not PROGRAM.exists():
        return {"absent": "no out/cpp/release/asap-infer; make cpp builds it"}
    command = [PROGRAM, bundle, "--image", image, "--prompt", question, "--json", "--provider", "cuda"]
    command += ["--max-new-tokens", str(tokens), "--repeat", str(repeat)]
    with tempfile.TemporaryDirectory() as folder:
        _link_runtime(Path(folder))
        environment = dict(os.environ) | {"LD_LIBRARY_PATH": ":".join([folder, *_cuda(), *_searched()])}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return {"failed": f"asap-infer did not end within {SECONDS} s"}
    if done.returncode:
        said = " ".join(done.stderr.split()).replace(str(PROGRAM), PROGRAM.name)
        return {"failed": said.replace(folder, "its folder")[-400:]}
    answers = json.loads(done.stdout)
    counted = [answer["timings"] for answer in answers[1:]]
    return {
        "token_ids": answers[0]["token_ids"],
        "kept_index": answers[0]["kept_index"],
        "prefill_ms": 1e3 * statistics.median(each["prefill"] for each in counted),
        "per_token_ms": 1e3 * statistics.median(step for each in counted for step in each["decode"]),
    }


def _link_runtime(folder: Path) -> None:
    """ONNX Runtime's libraries of the Python package, by the name that programs ask for."""
    runtime = find_spec("onnxruntime")
    for library in (Path(runtime.origin).parent / "capi").glob("*.so*") if runtime and runtime.origin else []:
        name = "libonnxruntime.so.1" if library.name.startswith("libonnxruntime.so") else library.name
        (folder / name).symlink_to(library)


def _cuda() -> list[str]:
    """Folders of CUDA's libraries in NVIDIA's Python packages."""
    nvidia = find_spec("nvidia")
    places = (nvidia.submodule_search_locations or []) if nvidia else []
    return sorted({str(file.parent) for place in places for file in Path(place).glob("**/lib*.so*")})


def _searched() -> list[str]:
    return [entry for entry in os.environ.get("LD_LIBRARY_PATH", "").split(":") if entry]
