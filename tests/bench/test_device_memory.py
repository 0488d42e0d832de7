"""Memory of a CUDA device, which stands here for itself: a made-up one that keeps what a prefill took."""

import sys
from types import SimpleNamespace

import pytest

from asap_export import cuda
from asap_export.bench import BenchRequest, bench, device_memory
from asap_export.bench.bundle_model import open_bundle
from asap_export.bench.device_memory import DeviceMemory
from asap_export.bench.records import Workload
from asap_export.bench.staged import StagedRunner
from asap_export.bench.workload import drawn_images
from asap_export.errors import UserError
from asap_export.model.anyres import TileGeometry

OTHERS, WEIGHTS, PREFILL = 5000, 700, 70  # bytes


class MadeUpDevice:
    """NVML's view of one device."""

    NVMLError = RuntimeError

    def __init__(self) -> None:
        self.used = OTHERS

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByPciBusId(self, place: str) -> str:
        if place != "0000:3b:00.0":
            raise self.NVMLError("Not Found")
        return place

    def nvmlDeviceGetMemoryInfo(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(used=self.used)


@pytest.fixture
def device(monkeypatch) -> MadeUpDevice:
    device = MadeUpDevice()
    monkeypatch.setitem(sys.modules, "pynvml", device)
    monkeypatch.setattr(device_memory, "pci_bus_id", lambda: "0000:3b:00.0")
    return device


@pytest.fixture
def workload(tmp_path, pruned_bundle) -> Workload:
    geometry = TileGeometry.of(open_bundle(pruned_bundle, 1).spec)
    images = tuple(map(str, drawn_images(tmp_path, 60, 1, geometry)))
    return Workload(images, "What is it?", visual_tokens=60, text_tokens=8, keep=20)


def test_what_a_contender_holds_on_the_device(device, monkeypatch, pruned_bundle, workload):
    memory = DeviceMemory()
    model = open_bundle(pruned_bundle, 1)
    device.used += WEIGHTS
    runner = StagedRunner(model, memory)
    assert runner.weights == WEIGHTS  # not what others had before

    prefill = model.prefill

    def taking(*arguments):
        device.used = OTHERS + WEIGHTS + PREFILL  # an arena: the second run takes nothing new
        return prefill(*arguments)

    monkeypatch.setattr(model, "prefill", taking)
    for _ in range(2):
        sample = runner.prefill(workload, 0)
        assert (sample["peak_above_weights"], sample["peak"]) == (PREFILL, WEIGHTS + PREFILL)


def test_without_a_memory_to_ask_times_are_measured_and_the_sample_says_why(pruned_bundle, workload):
    runner = StagedRunner(open_bundle(pruned_bundle, 1), None, "device memory was not measured")
    sample = runner.prefill(workload, 0)
    assert runner.weights is sample["peak_above_weights"] is sample["peak"] is None
    assert sample["note"] == "device memory was not measured" and sample["seconds"]["prefill"] > 0


def test_the_device_is_known_by_its_place_on_the_bus(monkeypatch):
    class Driver:
        def cuDeviceGet(self, device, number: int) -> int:
            return number

        def cuDeviceGetPCIBusId(self, name, size: int, device) -> int:
            name.value = b"0000:3b:00.0"
            return size != 13

    monkeypatch.setattr(cuda, "_driver", Driver)
    assert cuda.pci_bus_id() == "0000:3b:00.0"
    monkeypatch.setattr(cuda, "_driver", lambda: None)
    assert cuda.pci_bus_id() is None


@pytest.mark.skipif(bool(cuda.compute_capabilities()), reason="this machine has a CUDA device")
def test_without_a_device_nothing_starts(pruned_bundle):
    with pytest.raises(UserError, match="expected a CUDA device for provider cuda, found none"):
        bench(BenchRequest(bundles=(pruned_bundle,), provider="cuda", peers="none"))


def test_a_device_that_cannot_be_asked_is_refused(device, monkeypatch):
    monkeypatch.setattr(device_memory, "pci_bus_id", lambda: "0000:00:00.0")
    with pytest.raises(UserError, match="expected NVML to know the CUDA device"):
        DeviceMemory()
    monkeypatch.setattr(device_memory, "pci_bus_id", lambda: None)
    with pytest.raises(UserError, match="expected a CUDA device, found none"):
        DeviceMemory()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(UserError, match="expected the Python package nvidia-ml-py, found none"):
        DeviceMemory()
