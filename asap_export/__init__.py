"""LLaVA-NeXT and LLaVA-1.5 to ONNX and TensorRT, with ASAP visual-token pruning inside the language model.

From a checkpoint to a bundle, and from a bundle to an answer::

    import asap_export

    asap_export.export("llava-hf/llava-v1.6-vicuna-7b-hf", "out/", keep=478)
    model = asap_export.load("out/")
    print(model.generate(["cat.png"], "What is on the mat?").text)
"""

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import os

    from asap_export.bundle import Bundle
    from asap_export.errors import UserError
    from asap_export.progress import ProgressCallback
    from asap_export.pruning.config import PruningConfig
    from asap_export.runtime.model import load
    from asap_export.runtime.request import Answer, Request

    __version__: str

__all__ = ["Answer", "Request", "UserError", "__version__", "export", "load"]

# Looked up late: ``import asap_export`` costs nothing, whichever part of it is then used.
_HOMES = {
    "Answer": "asap_export.runtime.request",
    "Request": "asap_export.runtime.request",
    "UserError": "asap_export.errors",
    "load": "asap_export.runtime.model",
}


def export(
    model: "str | os.PathLike[str] | None" = None,
    output: "str | os.PathLike[str] | None" = None,
    *,
    engine: Literal["ort", "trt"] = "ort",
    dtype: Literal["fp32", "fp16", "bf16"] | None = None,
    quantize: Literal["int4", "int8"] | None = None,
    keep: int | None = None,
    keep_ratio: float | None = None,
    budget: float | None = None,
    dense: bool = False,
    pruning: "PruningConfig | None" = None,
    max_batch: int | None = None,
    max_images: int | None = None,
    max_text: int | None = None,
    max_new_tokens: int | None = None,
    revision: str | None = None,
    overwrite: bool = False,
    progress: "ProgressCallback | None" = None,
) -> "Bundle":
    """Export a checkpoint, a folder or a hub id, to a bundle; without ``model`` the built-in demo.

    The arguments are the command's options of these names; ``pruning`` holds those on how tokens are chosen, and
    ``asap_export.exporter.ExportRequest`` has the rest. Returns the bundle, whose ``path`` goes to ``load``.
    Raises UserError before the long work wherever this cannot be done.
    """
    from pathlib import Path

    from asap_export.argument_types import check_path
    from asap_export.errors import UserError
    from asap_export.exporter import ExportRequest
    from asap_export.exporter import export as write
    from asap_export.progress import no_progress
    from asap_export.pruning.config import Budget, PruningConfig
    from asap_export.spec import QUANTIZATIONS

    for name, place in (("model", model), ("output", output)):
        if place is not None:
            check_path(name, place)
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise UserError(f"expected --quantize int4 or int8, found {quantize}; change it or leave it out")
    if dense and pruning is not None:
        raise UserError("expected --dense or pruning, found both; leave one of them out")
    request = ExportRequest(
        model=None if model is None else str(model),
        output=None if output is None else Path(output),
        engine=engine,
        dtype=dtype,
        quantization=None if quantize is None else QUANTIZATIONS[quantize],
        budget=None if (keep, keep_ratio, budget) == (None, None, None) else Budget(keep, keep_ratio, budget),
        pruning=PruningConfig(method="none") if dense else pruning or PruningConfig(),
        max_batch=max_batch,
        max_images=max_images,
        max_text=max_text,
        max_new_tokens=max_new_tokens,
        revision=revision,
        overwrite=overwrite,
    )
    return write(request, progress or no_progress).bundle


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("asap-export")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
