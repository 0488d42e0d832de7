"""LLaVA-NeXT and LLaVA-1.5 to ONNX and TensorRT, with ASAP visual-token pruning inside the language model.

Three lines from a bundle to an answer::

    import asap_export

    model = asap_export.load("out/")
    print(model.generate(["cat.png"], "What is on the mat?").text)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asap_export.runtime.model import load

    __version__: str

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # Looked up late: ``import asap_export`` costs nothing, whichever part of it is then used.
    if name == "load":
        from asap_export.runtime.model import load

        return load
    if name == "__version__":
        from importlib.metadata import version

        return version("asap-export")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
