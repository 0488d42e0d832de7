"""Shared by all tests: modules beside this file are importable, and what takes seconds is made once per run."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))

# A shell starts what it runs in the background with Ctrl-C ignored, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What takes a test out of `make quick`: a bundle, as a fixture or as a parameter that names one; an import of what
# exports or is there to be exported; programs, in C++ or of tools/.
SLOW_IMPORTS = (
    "asap_export.export",
    "asap_export.graph.trace",
    "asap_export.graph.write",
    "installed_command",
    "short_checkpoint",
    "faults",
)
SLOW_FOLDERS = ("cpp", "tools")


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        names = {*item.fixturenames, *(name for name in parameters if isinstance(name, str))}
        takes_bundle = "exported" in names or any(name.endswith("_bundle") for name in names)
        imported = {str(getattr(value, "__module__", "")) for value in vars(item.module).values()}
        exports = any(name.startswith(SLOW_IMPORTS) for name in imported)
        if takes_bundle or exports or item.path.parent.name in SLOW_FOLDERS:
            item.add_marker("slow")


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
def short_checkpoint(shared) -> Path:
    """The first three layers of the random checkpoint, for what needs no more: a faster export."""
    from short_checkpoint import write_short_checkpoint

    with FileLock(shared / "short.lock"):
        if not (shared / "short").exists():
            write_short_checkpoint(shared / "short")
    return shared / "short"


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
