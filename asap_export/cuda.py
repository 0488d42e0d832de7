"""Which CUDA devices this machine has, asked of the driver itself: importing torch for that takes seconds."""

import ctypes
from functools import cache

__all__ = ["compute_capabilities", "pci_bus_id"]

# CUdevice_attribute of the driver API
_MAJOR, _MINOR = 75, 76
_PCI_BUS_ID = 13  # bytes of "0000:00:00.0" with its end


@cache
def compute_capabilities() -> tuple[str, ...]:
    """Of every visible CUDA device, as "8.6"; empty where there is no device or no driver."""
    driver = _driver()
    count = ctypes.c_int()
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(
        f"{_attribute(driver, _MAJOR, number)}.{_attribute(driver, _MINOR, number)}"
        for number in range(count.value)
    )


def pci_bus_id() -> str | None:
    """Of the first visible CUDA device, as "0000:3b:00.0": what other interfaces know it by. None without one."""
    driver = _driver()
    device, name = ctypes.c_int(), ctypes.create_string_buffer(_PCI_BUS_ID)
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    return None if driver.cuDeviceGetPCIBusId(name, _PCI_BUS_ID, device) else name.value.decode()


def _driver() -> ctypes.CDLL | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return None if driver.cuInit(0) else driver


def _attribute(driver: ctypes.CDLL, attribute: int, number: int) -> int:
    device, value = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value
