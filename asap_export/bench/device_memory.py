"""Memory in use on the CUDA device that this process computes on, as NVIDIA's NVML counts it."""

from typing import Any

from asap_export.bench.resident import give_back
from asap_export.cuda import pci_bus_id
from asap_export.errors import UserError

__all__ = ["DeviceMemory"]


class DeviceMemory:
    """A ``Memory`` (see ``staged``) of the first visible CUDA device; bytes are those since it was made.

    The device's bytes are counted, not this process's, which NVML cannot tell in most containers: so nothing else
    may take or free any meanwhile. CUDA's own are among them. Raises UserError without a device or NVML.
    """

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise UserError(
                "expected the Python package nvidia-ml-py, found none; pip install nvidia-ml-py"
            ) from error
        place = pci_bus_id()
        if place is None:
            raise UserError("expected a CUDA device, found none; check the driver")
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            self._device = pynvml.nvmlDeviceGetHandleByPciBusId(place)
            self._before = self._used()
        except pynvml.NVMLError as error:
            raise UserError(f"expected NVML to know the CUDA device {place}, found: {error}") from error

    def give_back(self) -> None:
        """Drop what nobody uses any more; the allocators keep its memory."""
        give_back()

    def in_use(self) -> int:
        """Bytes now."""
        return self._used() - self._before

    def reset_peak(self) -> bool:
        """There is nothing to reset."""
        return True

    def peak(self) -> int:
        """What is in use: the arena of ONNX Runtime and PyTorch's allocator, which TensorRT's outputs come from,
        keep what a run has taken."""
        return self.in_use()

    def _used(self) -> int:
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._device).used)
