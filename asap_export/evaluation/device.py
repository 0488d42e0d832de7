"""The device on which PyTorch answers: whether it is there, and how many questions at once fit into its memory."""

import os
import re
from typing import NamedTuple

import torch

from asap_export.errors import UserError
from asap_export.memory import available_memory
from asap_export.parity.comparison_memory import attention_memory
from asap_export.spec import ModelSpec

__all__ = ["DeviceCapacity", "Needed", "chosen_device", "device_name", "memory_of", "needed_by", "rows_in"]

_ROWS = 16  # questions at once: a picture may have dozens
_TEXT = 128  # tokens of a prompt beside the visual ones, about
_SHARE = (
    0.8  # of a device's memory that rows may count on: how many they are must not depend on who else uses it
)


class DeviceCapacity(NamedTuple):
    """Of a device, in bytes: all of it, and what is free now."""

    total: int
    free: int


def chosen_device(name: str) -> torch.device:
    """The device called "cpu", "cuda" or "cuda:N". Raises UserError where PyTorch has none of that name."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"expected cpu, cuda or cuda:N for --device, found {name}; correct it")
    device = torch.device(name)
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        found = f"{count} of them" if count else "none"
        raise UserError(
            f"expected a CUDA device for --device {name}, found {found} with PyTorch {torch.__version__}; "
            "use --device cpu, or a PyTorch and a driver for CUDA"
        )
    return device


def device_name(device: torch.device) -> str:
    """What two evaluations must have in common to be one: "cpu", or a GPU's model, whatever its number."""
    return "cpu" if device.type == "cpu" else f"cuda, {torch.cuda.get_device_name(device)}"


def memory_of(device: torch.device) -> DeviceCapacity:
    """The host's memory, or a GPU's."""
    if device.type == "cpu":
        return DeviceCapacity(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), available_memory())
    free, total = torch.cuda.mem_get_info(device)
    return DeviceCapacity(total, free)


class Needed(NamedTuple):
    """Bytes, about, that answers take on a device: in any case, and for each question at once."""

    fixed: int
    row: int


def needed_by(
    spec: ModelSpec, weights: int, itemsize: int, max_new_tokens: int, device: torch.device
) -> Needed:
    """Weights, what all questions share, and caches, with the longest prompt that one image makes.

    The shared beginning is held with its states and queries. Of a question there are three caches in its first
    step: the prefill's, which stays until the answer is there, and that of the step, which exists twice while it
    grows. The masks and scores of one layer are float32; on the CPU attention holds those of all heads.
    """
    tokens = spec.max_visual_tokens + _TEXT + max_new_tokens
    cache = 2 * spec.kv_heads * spec.head_dim
    per_token = spec.layers * itemsize * tokens
    shared = per_token * (cache + spec.hidden_size + spec.heads * spec.head_dim)
    layer = 48 * tokens**2 + 4 * itemsize * tokens * spec.intermediate_size
    if device.type == "cpu":
        layer = attention_memory(spec.heads, spec.max_visual_tokens)
    return Needed(weights + shared + layer, 3 * per_token * cache)


def rows_in(needed: Needed, memory: DeviceCapacity) -> int:
    """Questions at once: the same for every evaluation on devices of one size, so that results are."""
    return max(1, min(_ROWS, (int(_SHARE * memory.total) - needed.fixed) // needed.row))
