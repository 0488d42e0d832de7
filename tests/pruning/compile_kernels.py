"""Compile the Triton kernels for compute capability 9.0, without a GPU, and print what came out as JSON."""

import itertools
import json
import re
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from asap_export.pruning.device import kernels

HEAD_DIM = 128
POINTERS = {"before": "*fp32", "after": "*fp32", "opened": "*i8", "log_sum": "*fp32"}
POINTERS |= {"weight": "*fp32", "received": "*fp32"}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
KERNELS: dict[str, tuple[Any, dict[str, bool]]] = {
    "attention": (kernels.attention_kernel, {"WITH_OUTPUT": True}),
    "log-sum-exp": (kernels.attention_kernel, {"WITH_OUTPUT": False}),
    "column": (kernels.column_kernel, {}),
}


def compiled(name: str, dtype: str) -> dict[str, Any]:
    """One kernel as a launch at real size has it compiled: addresses and strides are multiples of 16."""
    kernel, switches = KERNELS[name]
    tile = kernels.tile_for(DTYPES[dtype])
    constants = {"HEAD": HEAD_DIM, "WIDTH": HEAD_DIM, "ROWS": tile.rows, "KEYS": tile.keys, **switches}
    known = POINTERS | dict.fromkeys(("query", "key", "value", "output"), f"*{dtype}") | {"scale": "fp32"}
    signature = {
        argument: "constexpr" if argument in constants else known.get(argument, "i32")
        for argument in kernel.arg_names
    }
    even = {
        (place,): [["tt.divisibility", 16]]
        for place, argument in enumerate(kernel.arg_names)
        if signature[argument].startswith("*") or re.search("_[bht]$", argument)
    }
    found = triton.compile(
        ASTSource(kernel, signature, constants, even),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": tile.warps, "num_stages": tile.stages},
    )
    target = re.search(r"\.target (\S+)", found.asm["ptx"])
    return {
        "target": target and target[1],
        "binary": len(found.asm["cubin"]),
        "shared": found.metadata.shared,
        "tensor_cores": "wgmma" in found.asm["ptx"],
    }


if __name__ == "__main__":
    pairs = itertools.product(KERNELS, DTYPES)
    print(json.dumps({f"{name} {dtype}": compiled(name, dtype) for name, dtype in pairs}))
