"""Which CUDA devices this machine has, asked of the driver itself: importing torch for that takes seconds."""

import ctypes
from functools import cache

__all__ = ["compute_capabilities"]

# CUdevice_attribute of the driver API
_MAJOR, _MINOR = 75, 76


@cache
def compute_capabilities() -> tuple[str, ...]:
    """Of every visible CUDA device, as "8.6"; empty where there is no device or no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(
        f"{_attribute(driver, _MAJOR, number)}.{_attribute(driver, _MINOR, number)}"
        for number in range(count.value)
    )


def _attribute(driver: ctypes.CDLL, attribute: int, number: int) -> int:
    device, value = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value
