"""Speed, memory and FLOPs of bundles beside what people would use instead, measured in one interleaved run."""

from typing import Any

__all__ = ["BenchRequest", "bench"]


def __getattr__(name: str) -> Any:
    """Names when asked for: the command line and a worker import this package without PyTorch."""
    if name in __all__:
        from asap_export.bench import measurement

        return getattr(measurement, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
