"""What this machine can do at most, about: the rates that contenders are held against, from PyTorch.

A large matrix product in each precision, and one read of much more memory than caches hold. Other libraries may
be a little faster, so a part of the limit may come out above 1."""

from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor

from asap_export.bench import resident

__all__ = ["PRODUCTS", "MachineReference", "bf16_instructions"]

PRODUCTS = ("f32", "bf16", "int8")  # what may be multiplied; "memory" is the fourth rate
SIDE = 2048  # of the matrices
READ_BYTES = 2**28
TRIES = 3  # the best counts: a limit is what nothing disturbed


def bf16_instructions() -> bool:
    """Whether this CPU multiplies bf16 itself; elsewhere it is emulated, slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class MachineReference:
    """The worker's job "rates". It holds no memory between two of them."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.weights = resident.in_use()

    def rates(self) -> dict[str, float | None]:
        """Operations/s of a product in "f32", "bf16" and "int8", None where the CPU has no instructions for it,
        and the bytes/s that come from "memory"."""
        rates: dict[str, float | None] = {name: _product_rate(name) for name in PRODUCTS}
        array = torch.zeros(READ_BYTES // 4)
        rates["memory"] = READ_BYTES / _best(array.sum)
        del array
        resident.give_back()
        return rates


def _product_rate(precision: str) -> float | None:
    if precision == "bf16" and not bf16_instructions():
        return None
    if precision == "int8":
        left, right = (torch.randint(-128, 127, (SIDE, SIDE), dtype=torch.int8) for _ in range(2))
        multiply: Callable[[Tensor, Tensor], Tensor] = torch._int_mm
    else:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        left, right = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
        multiply = torch.mm
    return 2 * SIDE**3 / _best(lambda: multiply(left, right))


def _best(work: Callable[[], Tensor]) -> float:
    """Seconds of the fastest of several tries, one more to warm up."""
    seconds = []
    for _ in range(TRIES + 1):
        started = perf_counter()
        work()
        seconds.append(perf_counter() - started)
    return min(seconds[1:])
