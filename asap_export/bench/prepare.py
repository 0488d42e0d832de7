"""A model to measure without anybody's weights: a synthetic checkpoint, and the bundles made of it."""

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from asap_export.bench.synthetic import scaled_shape, write_checkpoint
from asap_export.bundle import Bundle
from asap_export.bundle.presets import find_preset, presets
from asap_export.errors import UserError
from asap_export.exporter import ExportRequest, export
from asap_export.progress import Progress, ProgressCallback
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.spec import DEFAULT_CPU_PASSES, QUANTIZATIONS, CpuPass, Dtype, Quantization

__all__ = ["BUNDLES", "Like", "prepared"]

_ASAP, _FASTV, _DENSE = PruningConfig(), PruningConfig(method="fastv"), PruningConfig(method="none")
BUNDLES: dict[str, tuple[PruningConfig, Quantization | None]] = {
    "asap": (_ASAP, None),
    "dense": (_DENSE, None),
    "fastv": (_FASTV, None),
    "asap-int4": (_ASAP, Quantization(block_size=64)),
    "dense-int4": (_DENSE, Quantization(block_size=64)),
    "asap-int8": (_ASAP, QUANTIZATIONS["int8"]),
    "dense-int8": (_DENSE, QUANTIZATIONS["int8"]),
}
_PACKAGE = Path(__file__).parents[1]
_MADE_BY = "made-by.txt"  # a digest of the code that made what lies beside it


@dataclass(frozen=True)
class Like:
    """A public model's shape: the preset's name, the part of its width, and of its depth if not all.

    ``work`` holds a folder for each shape, whose content is used again while the code that made it is the same.
    """

    name: str
    scale: float
    layers: int | None
    dtype: Dtype
    bundles: tuple[str, ...]
    work: Path


def prepared(like: Like, progress: ProgressCallback) -> tuple[Path, list[Bundle]]:
    """The checkpoint's folder and its bundles. Raises UserError for unknown names and sizes."""
    preset = find_preset(like.name)
    if preset is None:
        raise UserError(
            f"expected --like to name one of {', '.join(presets())}, found {like.name}; change it"
        )
    for name in like.bundles:
        if name not in BUNDLES or like.bundles.count(name) > 1:
            found = f"{name or 'nothing'}{' twice' if name in BUNDLES else ''}"
            raise UserError(f"expected --contenders among {', '.join(BUNDLES)}, found {found}; change it")
    scaled_shape(preset.decoder, like.scale, like.layers)
    depth = f"-{like.layers}-layers" if like.layers else ""
    kind = "" if like.dtype == "fp32" else f"-{like.dtype}"
    folder = like.work / f"{preset.name}-{like.scale:g}{depth}{kind}"
    code = _digest()
    made_by = folder / _MADE_BY
    if folder.exists() and not made_by.is_file():
        raise UserError(f"expected a folder of an earlier bench at {folder}, found another; change --work")
    if made_by.is_file() and made_by.read_text() != code:
        shutil.rmtree(folder)
    checkpoint = folder / "checkpoint"
    if not checkpoint.exists():
        _begun(folder, code)
        write_checkpoint(
            checkpoint, preset, like.dtype, scale=like.scale, layers=like.layers, progress=progress
        )
    return checkpoint, [
        _exported(folder / name, checkpoint, name, like.dtype, progress) for name in like.bundles
    ]


def _begun(folder: Path, code: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MADE_BY).write_text(code)
    except OSError as error:
        raise UserError(f"expected to write to {folder}, found: {error.strerror}; change --work") from error


def _exported(folder: Path, checkpoint: Path, name: str, dtype: Dtype, progress: ProgressCallback) -> Bundle:
    if folder.exists():
        return Bundle.open(folder)
    pruning, quantization = BUNDLES[name]
    request = ExportRequest(
        model=str(checkpoint),
        output=folder,
        dtype=dtype,
        pruning=pruning,
        quantization=quantization,
        # Integer weights as fast as they go: that is what somebody takes them for.
        cpu_passes=get_args(CpuPass) if quantization else DEFAULT_CPU_PASSES,
        weights="auto" if quantization else "link",  # one copy in the page cache serves all
        budget=Budget(ratio=1 / 6) if pruning.prunes else None,
    )

    def named(stand: Progress) -> None:
        progress(replace(stand, stage=f"Export {name}", detail=stand.stage))

    return export(request, named).bundle


def _digest() -> str:
    """Of all code that checkpoint and bundles depend on, so that nobody measures yesterday's graphs."""
    digest = hashlib.sha256()
    idle = {"cli", "evaluation", "explain", "lmms", "parity", "report", "scenes"}
    files = [file for pattern in ("*.py", "*.onnxtxt") for file in _PACKAGE.rglob(pattern)]
    graphs = (_PACKAGE / "graphs").resolve()
    for file in sorted([*files, *(file for file in graphs.rglob("*") if file.is_file())]):
        if not idle.intersection(file.parts) and (file.parent.name != "bench" or file.name == "synthetic.py"):
            digest.update(file.read_bytes())
    return digest.hexdigest()
