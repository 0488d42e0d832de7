import builtins
import json
import platform
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from asap_export.report.environment import environment_facts, environment_table


def rendering(facts: dict[str, Any]) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(environment_table(facts))
    return capture.get()


def test_versions_and_devices_are_said() -> None:
    facts = environment_facts()
    assert facts["packages"]["onnx"] and facts["python"] == platform.python_version()
    assert "CPUExecutionProvider" in facts["onnxruntime_providers"]
    assert "CPUExecutionProvider" in rendering(facts)


def test_a_bare_machine_is_described_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to import, no nvidia-smi, no /proc: every probe fails, the report does not."""

    def refuse(*_: object, **__: object) -> Any:
        raise OSError("libcudart.so.13: cannot open shared object file in /home/someone/secret")

    original = builtins.__import__
    monkeypatch.setattr(
        builtins,
        "__import__",
        lambda name, *rest: refuse() if name in ("torch", "onnxruntime") else original(name, *rest),
    )
    monkeypatch.setattr("subprocess.run", refuse)
    monkeypatch.setattr("asap_export.report.environment.version", refuse)
    monkeypatch.setattr(Path, "read_text", refuse)
    facts = environment_facts()
    assert (
        facts["onnxruntime_providers"] is None and facts["gpus"] == [] and facts["packages"]["onnx"] is None
    )
    assert "someone" not in rendering(facts)


def test_gpus_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        stdout = "NVIDIA GeForce RTX 4090, 24564 MiB, 8.9, 580.10\n"

    monkeypatch.setattr("subprocess.run", lambda *_, **__: Answer())
    assert "NVIDIA GeForce RTX 4090, 24564 MiB, compute 8.9, driver 580.10" in rendering(environment_facts())


def test_no_path_of_the_user_and_no_variable_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    text = json.dumps(environment_facts())
    assert "hf_very_secret" not in text and str(Path.home()) not in text and str(Path.cwd()) not in text
