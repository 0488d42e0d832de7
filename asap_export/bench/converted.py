"""A checkpoint as OpenVINO GenAI reads it, kept for the next time."""

import os
import shutil
import subprocess
from pathlib import Path

from asap_export.errors import UserError

__all__ = ["openvino_model"]

_GROUPS = {"int4": ("--group-size", "64")}
_NEEDS = "pip install openvino-genai 'optimum-intel[nncf]' there"


def openvino_model(checkpoint: Path, python: str, weights: str, folder: Path) -> Path:
    """``folder`` with the converted checkpoint, written by optimum-intel under the interpreter ``python``.

    ``weights``: "fp32", "fp16", "int8" or "int4", each as optimum-intel makes it by default, but 4-bit weights in
    groups that every width here can be divided into. Raises UserError where that fails, as where optimum-intel is
    not installed there."""
    if folder.exists():
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [
        python, "-m", "optimum.commands.optimum_cli", "export", "openvino", "--model", str(checkpoint),
        "--task", "image-text-to-text", "--weight-format", weights, *_GROUPS.get(weights, ()), str(partial),
    ]  # fmt: skip
    # What this package sees is not for an environment of its own; a checkpoint here needs no network.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command, env=environment | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
        )
    except OSError as error:
        raise UserError(
            f"expected a Python at {python}, found: {error.strerror}; change --openvino-python"
        ) from error
    if done.returncode or not (partial / "openvino_language_model.xml").is_file():
        shutil.rmtree(partial, ignore_errors=True)
        said = (done.stderr.strip().splitlines() or ["nothing said"])[-1][:200]
        raise UserError(
            f"expected optimum-intel under {python} to convert the checkpoint, found: {said}; {_NEEDS}"
        )
    partial.rename(folder)
    return folder
