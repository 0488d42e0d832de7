"""The two TensorRTs: ``tensorrt`` for the GPU of this machine, ``tensorrt_rtx`` also ahead of time for others.

Polygraphy decides at its first import which of them it drives, by an environment variable. That switch is
thrown here and nowhere else.
"""

import importlib
import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple, cast, get_args

from asap_export.bundle.manifest import Flavor
from asap_export.cuda import compute_capabilities
from asap_export.errors import UserError

__all__ = ["Tools", "find_flavor", "known_capabilities", "load_tools", "target_capabilities"]

_FIRST_CAPABILITY = (8, 6)  # of the default targets: Ampere's consumer GPUs
_INSTALL = {"tensorrt": 'pip install "asap-export[gpu]"', "tensorrt_rtx": 'pip install "asap-export[rtx]"'}


class Tools(NamedTuple):
    """One flavor's Python modules: TensorRT itself and Polygraphy's loaders over it."""

    trt: Any
    loaders: Any  # polygraphy.backend.trt
    create_config: Any  # called as create_config(builder, network, compute_capabilities, **options)


def find_flavor(name: str) -> Flavor:
    """The flavor to build with; ``name`` is "tensorrt", "tensorrt_rtx" or "auto".

    "auto" prefers tensorrt where a CUDA GPU is present. Raises UserError where nothing fitting is installed.
    """
    if name == "auto":
        return _best_flavor()
    flavor = name.replace("-", "_")
    if flavor not in get_args(Flavor):
        raise UserError(f"expected --flavor auto, tensorrt or tensorrt_rtx, found {name}")
    if not _installed(flavor):
        raise UserError(
            f"expected the Python package {flavor}, found none; install it with {_INSTALL[flavor]}"
        )
    if flavor == "tensorrt" and not compute_capabilities():
        raise UserError(
            "expected a CUDA GPU, which --flavor tensorrt needs for building, found none; "
            "use --flavor tensorrt_rtx, which builds ahead of time"
        )
    return cast(Flavor, flavor)


def _best_flavor() -> Flavor:
    if _installed("tensorrt") and compute_capabilities():
        return "tensorrt"
    if _installed("tensorrt_rtx"):
        return "tensorrt_rtx"
    found = "only tensorrt, which needs a GPU for building," if _installed("tensorrt") else "none"
    raise UserError(
        f"expected TensorRT for --engine trt, found {found} here; install it with {_INSTALL['tensorrt_rtx']} "
        f"(builds on any machine) or {_INSTALL['tensorrt']} (data-centre GPUs), or use --engine ort"
    )


def target_capabilities(flavor: Flavor, requested: Sequence[str] = ()) -> tuple[str, ...]:
    """Compute capabilities to build for, as "8.6", ascending; or ("current",), the GPU of this machine.

    ``requested`` may say "86", "8.6", "SM86" or "current". Without it a machine with a GPU builds for that
    one, and a machine without builds for all that the installed TensorRT-RTX knows from 8.6 up. Raises
    UserError for a value that is none of those.
    """
    if flavor == "tensorrt":
        if [value for value in requested if value.lower() != "current"]:
            raise UserError(
                f"expected no --compute-capability with flavor tensorrt, found {', '.join(requested)}: it builds "
                "for this machine's GPU; leave it out or use --flavor tensorrt_rtx"
            )
        return ("current",)
    if not requested and not compute_capabilities():
        return tuple(_text(pair) for pair in known_capabilities() if pair >= _FIRST_CAPABILITY)
    if not requested or [value.lower() for value in requested] == ["current"]:
        if not compute_capabilities():
            raise UserError(
                "expected a CUDA GPU for --compute-capability current, found none; name one, such as 8.9"
            )
        _require_rtx(compute_capabilities()[0])
        return ("current",)
    return tuple(_text(pair) for pair in sorted({_parsed(value) for value in requested}))


def known_capabilities() -> tuple[tuple[int, int], ...]:
    """(major, minor) of every compute capability that the installed TensorRT-RTX can build for."""
    members = importlib.import_module("tensorrt_rtx").ComputeCapability.__members__
    numbers = [int(name[2:]) for name in members if re.fullmatch(r"SM\d+", name)]
    return tuple(sorted(divmod(number, 10) for number in numbers))


def _parsed(value: str) -> tuple[int, int]:
    known = known_capabilities()
    form = re.fullmatch(r"(?:sm_?)?(\d+)\.?(\d)", value.strip(), re.IGNORECASE)
    pair = (int(form[1]), int(form[2])) if form else None
    if pair not in known:
        names = ", ".join(_text(each) for each in known)
        raise UserError(f"expected --compute-capability of {names}, found {value}")
    return pair


def _require_rtx(device: str) -> None:
    """TensorRT-RTX builds for "current" on every GPU, and refuses to load the engine on some, such as Hopper."""
    known = known_capabilities()
    if _pair(device) not in known and _pair(device) < known[-1]:
        raise UserError(
            f"expected a GPU that TensorRT-RTX runs on ({', '.join(map(_text, known))} or newer), found compute "
            f"capability {device}; use --flavor tensorrt, --engine ort, or --compute-capability for another GPU"
        )


def _pair(device: str) -> tuple[int, int]:
    major, minor = device.split(".")
    return int(major), int(minor)


def _text(pair: tuple[int, int]) -> str:
    return f"{pair[0]}.{pair[1]}"


def load_tools(flavor: Flavor) -> Tools:
    """Import one flavor. A process drives one of them: Polygraphy cannot be switched once it is imported."""
    rtx = flavor == "tensorrt_rtx"
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1" if rtx else "0"
    drives_rtx = importlib.import_module("polygraphy.config").USE_TENSORRT_RTX
    if drives_rtx != rtx:
        raise UserError(
            f"expected one TensorRT flavor per process, found {flavor} as the second; start another"
        )
    loaders = importlib.import_module("polygraphy.backend.trt")
    return Tools(importlib.import_module(flavor), loaders, _create_rtx_config if rtx else _create_config)


def _create_rtx_config(builder: Any, network: Any, capabilities: Sequence[str], **options: Any) -> Any:
    create = importlib.import_module("polygraphy.backend.tensorrt_rtx").CreateConfigRTX
    if list(capabilities) == ["current"]:
        return create(use_gpu=True, **options)(builder, network)
    pairs = [tuple(int(part) for part in each.split(".")) for each in capabilities]
    return create(compute_capabilities=pairs, **options)(builder, network)


def _create_config(builder: Any, network: Any, capabilities: Sequence[str], **options: Any) -> Any:
    return importlib.import_module("polygraphy.backend.trt").CreateConfig(**options)(builder, network)


def _installed(package: str) -> bool:
    return find_spec(package) is not None
