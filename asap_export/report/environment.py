"""What a bug report needs: versions and devices. Never fails, and says nothing of names, paths or secrets."""

import os
import platform
import subprocess
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

__all__ = ["environment_facts", "environment_table"]

PACKAGES = (
    "asap-export", "torch", "transformers", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "onnxruntime-gpu",
    "openvino", "polygraphy", "tensorrt", "tensorrt-rtx", "numpy", "safetensors", "huggingface_hub", "tokenizers",
    "pillow",
)  # fmt: skip


def environment_facts() -> dict[str, Any]:
    """Versions and devices as JSON values; what is not installed, or cannot be found out, is None."""
    return {
        "python": platform.python_version(),
        "system": _or_none(_system),
        "machine": platform.machine(),
        "cpu": _or_none(_cpu),
        "cores": _or_none(lambda: len(os.sched_getaffinity(0))) or os.cpu_count(),
        "memory_bytes": _or_none(lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "packages": {name: _or_none(partial(_version, name)) for name in PACKAGES},
        "onnxruntime_providers": _or_none(_providers),
        "torch_cuda": _or_none(_torch_cuda),
        "gpus": _or_none(_gpus) or [],
    }


def environment_table(facts: dict[str, Any]) -> Table:
    """``environment_facts`` for a terminal."""
    table = Table(box=None, show_header=False, pad_edge=False)
    memory = facts["memory_bytes"]
    rows = {
        "Python": facts["python"],
        "system": f"{facts['system'] or 'unknown'}, {facts['machine']}",
        "CPU": f"{facts['cpu'] or 'unknown'}, {facts['cores']} cores",
        "memory": f"{memory / 2**30:.1f} GiB" if memory else "unknown",
        **{name: found or "not installed" for name, found in facts["packages"].items()},
        "ONNX Runtime providers": ", ".join(facts["onnxruntime_providers"] or []) or "none",
        "CUDA of torch": facts["torch_cuda"] or "none",
    }
    for number, gpu in enumerate(facts["gpus"]):
        rows[f"GPU {number}"] = (
            f"{gpu['name']}, {gpu['memory']}, compute {gpu['compute_capability']}, driver {gpu['driver']}"
        )
    if not facts["gpus"]:
        rows["GPU"] = "none found"
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(str(value)))
    return table


def _or_none(probe: Callable[[], Any]) -> Any:
    """A probe's answer; None where it fails, whatever a broken installation raises."""
    try:
        return probe()
    except Exception:
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _system() -> str:
    try:
        release = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        release = ""
    kernel = f"{platform.system()} {platform.release()}"
    return f"{release}, {kernel}" if release else kernel


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _providers() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def _torch_cuda() -> str | None:
    import torch

    return torch.version.cuda


def _gpus() -> list[dict[str, str]]:
    query = "name,memory.total,compute_cap,driver_version"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    keys = ("name", "memory", "compute_capability", "driver")
    return [dict(zip(keys, map(str.strip, line.split(",")), strict=True)) for line in answer.splitlines()]
