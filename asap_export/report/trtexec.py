"""Commands that time a bundle's engines with NVIDIA's own tool."""

import shlex
from collections.abc import Iterator

from asap_export.bundle import Bundle, EngineInfo, Profile, ShapeRange

__all__ = ["trtexec_commands"]

# TensorRT-RTX names its tool after itself; the options are the same.
_TOOLS = {"tensorrt": "trtexec", "tensorrt_rtx": "tensorrt_rtx"}


def trtexec_commands(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """For each profile of each engine a title, and the command that times it at the shapes it is planned for."""
    for engine in bundle.manifest.engines:
        for number, profile in enumerate(engine.profiles):
            yield f"{engine.file}, {profile.name}", _command(bundle, engine, number, profile)


def _command(bundle: Bundle, engine: EngineInfo, number: int, profile: Profile) -> str:
    shapes = ",".join(_spec(name, bounds) for name, bounds in (profile.shapes | profile.values).items())
    words = [
        _TOOLS[engine.flavor],
        f"--loadEngine={bundle.path / engine.file}",
        f"--useProfile={number}",
        f"--shapes={shapes}",
    ]
    return shlex.join(words)


def _spec(name: str, bounds: ShapeRange) -> str:
    """A tensor's shape, or the value of a shape tensor such as ``kept_length``, in the tool's own form."""
    return f"{name}:{'x'.join(map(str, bounds.opt))}"
