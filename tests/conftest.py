"""Shared by all tests: modules beside this file are importable, and what takes seconds is made once per run."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))

# Triton reads it when a kernel is defined, so before any test imports one.
os.environ.setdefault("TRITON_INTERPRET", "1")

# A shell starts what it runs in the background with Ctrl-C ignored, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder that parallel workers have in common."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def random_checkpoint(shared) -> Path:
    """The random checkpoint of eight layers, in fp16. Read only: other tests use it too."""
    from random_checkpoint import write_random_checkpoint

    with FileLock(shared / "checkpoint.lock"):
        if not (shared / "checkpoint").exists():
            write_random_checkpoint(shared / "checkpoint")
    return shared / "checkpoint"


@pytest.fixture(scope="session")
def exported(shared, random_checkpoint) -> Callable[..., Path]:
    """Bundles by name, of the random checkpoint or another; workers wait for each other and share them."""
    from asap_export.exporter import ExportRequest, export
    from asap_export.pruning.config import PruningConfig

    def bundle(name: str, dtype: str, model: Path | None = None, **pruning) -> Path:
        folder = shared / f"{name}.bundle"
        with FileLock(shared / f"{name}.lock"):
            if not folder.exists():
                source, config = str(model or random_checkpoint), PruningConfig(**pruning)
                export(ExportRequest(model=source, output=folder, dtype=dtype, pruning=config))
        return folder

    return bundle


@pytest.fixture(scope="session")
def demo_bundle(shared) -> Path:
    """The bundle of an export that names no checkpoint: the trained demo in fp16, pruned with the defaults."""
    from installed_command import run

    with FileLock(shared / "demo.lock"):
        if not (shared / "demo.bundle").exists():
            run("--output", "demo.bundle", folder=shared)
    return shared / "demo.bundle"


@pytest.fixture(scope="session")
def pruned_bundle(exported) -> Path:
    """The random checkpoint in fp32, pruned with the defaults. Read only: other tests use it too."""
    return exported("pruned", "fp32")


@pytest.fixture(scope="session")
def fp16_bundle(exported) -> Path:
    """The random checkpoint as stored, fp16, pruned with the defaults."""
    return exported("fp16", "fp16")


@pytest.fixture(scope="session")
def dense_bundle(exported) -> Path:
    """The random checkpoint in fp32 without pruning."""
    return exported("dense", "fp32", method="none")


@pytest.fixture(scope="session")
def llava_1_5_checkpoint(tmp_path_factory) -> Path:
    """A small LLaVA-1.5 whose class token is a visual token too."""
    from small_checkpoints import SmallModel, write_checkpoint

    folder = tmp_path_factory.mktemp("llava-1.5") / "checkpoint"
    return write_checkpoint(folder, SmallModel("llava", "llama-with-biases", "class-token"))


@pytest.fixture(scope="session")
def llava_1_5_bundle(exported, llava_1_5_checkpoint) -> Path:
    """The small LLaVA-1.5 in fp32 without pruning."""
    return exported("llava-1.5", "fp32", llava_1_5_checkpoint, method="none")


@pytest.fixture(scope="session")
def untrimmed_bundle(exported) -> Path:
    """The random checkpoint in fp32; the layers before the cut keep their whole caches."""
    return exported("untrimmed", "fp32", trim_early_kv=False)
