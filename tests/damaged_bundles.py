"""Bundles with a planted fault, whose manifest is made to fit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from asap_export.bundle import FileInfo, sha256_of
from asap_export.bundle.folder import read_manifest


def rewrite_manifest(folder: Path, name: str) -> None:
    """Make the manifest fit a changed file."""
    manifest = read_manifest(folder)
    info = FileInfo(sha256_of(folder / name), (folder / name).stat().st_size)
    (folder / "manifest.json").write_text(replace(manifest, files={**manifest.files, name: info}).text())


def change_tensor(bundle: Path, target: Path, name: str, change) -> Path:
    """A copy of a bundle in which ``change`` has altered the stored tensor ``name``, in place."""
    shutil.copytree(bundle, target)
    for file in (target / "weights").iterdir():
        length = int.from_bytes(file.open("rb").read(8), "little")
        entry = json.loads(file.read_bytes()[8 : 8 + length]).get(name)
        if entry is None:
            continue
        dtype = {"F32": np.float32, "F16": np.float16, "U8": np.uint8}[entry["dtype"]]
        offset, shape = 8 + length + entry["data_offsets"][0], tuple(entry["shape"])
        tensor = np.memmap(file, dtype, "r+", offset, shape)
        change(tensor)
        tensor.flush()
        rewrite_manifest(target, file.relative_to(target).as_posix())
        return target
    raise ValueError(f"no tensor {name} in {bundle}")
