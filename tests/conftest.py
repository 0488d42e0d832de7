"""Shared by all tests: helper modules beside this file are importable, and bundles are exported once per run."""

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


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Callable[..., Path]:
    """Bundles by name, of the demo checkpoint or another; parallel workers wait for each other and share them."""
    from asap_export.export import ExportRequest, export
    from asap_export.pruning.config import PruningConfig

    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bundles"
    shared.mkdir(exist_ok=True)

    def bundle(name: str, dtype: str, model: str | None = None, **pruning) -> Path:
        with FileLock(shared / f"{name}.lock"):
            if not (shared / name).exists():
                config = PruningConfig(**pruning)
                export(ExportRequest(model=model, output=shared / name, dtype=dtype, pruning=config))
        return shared / name

    return bundle


@pytest.fixture(scope="session")
def demo_bundle(exported) -> Path:
    """The demo checkpoint in fp32, pruned with the defaults. Read only: other tests use it too."""
    return exported("demo", "fp32")


@pytest.fixture(scope="session")
def fp16_bundle(exported) -> Path:
    """The demo checkpoint as stored, fp16, pruned with the defaults."""
    return exported("fp16", "fp16")


@pytest.fixture(scope="session")
def dense_bundle(exported) -> Path:
    """The demo checkpoint in fp32 without pruning."""
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
    return exported("llava-1.5", "fp32", str(llava_1_5_checkpoint), method="none")


@pytest.fixture(scope="session")
def untrimmed_bundle(exported) -> Path:
    """The demo checkpoint in fp32; the layers before the cut keep their whole caches."""
    return exported("untrimmed", "fp32", trim_early_kv=False)
