"""A device that is not the host, for machines without a GPU: its tensors have values, and refuse the host's.

Tensors on it say "meta" for their device and hold a tensor of the host, on which everything is computed. As on a
GPU, an operation takes tensors of one device; a number that is a tensor of the host may join, and ``to`` moves
values.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from asap_export.pruning import operators

DEVICE = torch.device("meta")
_MOVES = ("aten::_to_copy", "aten::copy_")
_INDEXED = ("aten::index", "aten::index_put_")  # places may come from the host


class OnDevice(torch.Tensor):
    """``host`` holds the values."""

    host: torch.Tensor

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> "OnDevice":
        made = torch.Tensor._make_wrapper_subclass(
            cls, host.shape, strides=host.stride(), storage_offset=host.storage_offset(), dtype=host.dtype,
            device=DEVICE,
        )  # fmt: skip
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of the device's block")


@contextmanager
def stand_in_device() -> Iterator["Device"]:
    """Inside the block DEVICE is the stand-in, and the method's operators run on it step by step."""
    with _Literals(), Device() as device:
        yield device


class Device(TorchDispatchMode):
    """``looks`` counts how often a value was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = {f"asap::{name}": getattr(operators, name)._init_fn for name in operators.__all__}
        self.looks = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), func._schema.name
        if name in self.operators:
            with self:
                return self.operators[name](*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        here = any(isinstance(tensor, OnDevice) for tensor in tensors)
        strangers = [tensor for tensor in tensors if not isinstance(tensor, OnDevice) and tensor.dim()]
        if here and strangers and name not in (*_MOVES, *_INDEXED):
            raise RuntimeError(f"{name} of tensors on two devices, of the host {strangers[0].shape}")
        self.looks += name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal")
        if kwargs.get("device") is not None:
            here = torch.device(kwargs["device"]) == DEVICE
            kwargs["device"] = torch.device("cpu")
        found = func(*tree_map_only(OnDevice, _host, args), **tree_map_only(OnDevice, _host, kwargs))
        if func._schema.is_mutable:
            return args[0]
        return tree_map_only(torch.Tensor, OnDevice, found) if here else found


class _Literals(TorchFunctionMode):
    """Ways between numbers and tensors that PyTorch takes without asking: on "meta" there are no values to make or
    to give."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") == DEVICE:
            return func(*args, **kwargs | {"device": "cpu"}).to(DEVICE)
        if func is torch.Tensor.tolist and isinstance(args[0], OnDevice):
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


def _host(tensor: OnDevice) -> torch.Tensor:
    return tensor.host
