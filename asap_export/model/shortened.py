"""A module of a checkpoint's model with other parts; the model itself stays as it is."""

from copy import copy
from typing import Any

from torch import nn

__all__ = ["with_first_layers", "with_modules"]


def with_modules(module: nn.Module, **parts: nn.Module) -> Any:
    """The module with these parts in the place of those of their names, and the same weights."""
    changed = copy(module)
    changed._modules = {**module._modules, **parts}
    return changed


def with_first_layers(module: Any, layers: int) -> Any:
    """The module with no more of its ``layers`` than the first ones."""
    return with_modules(module, layers=module.layers[:layers])
