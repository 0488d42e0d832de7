"""A bundle with a fault in it."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
from damaged_bundles import rewrite_manifest

from asap_export.bundle.folder import read_manifest
from faults.fault import Fault

__all__ = ["plant"]


def plant(fault: Fault, bundle: Path, folder: Path) -> Path:
    """A copy in ``folder``, a new one, whose manifest is made to fit; what the fault leaves alone is linked.

    With a fault in ``decoder.onnx`` it has no decoder for the CPU, so that the one with the fault answers, and no
    time goes into the other.
    """
    shutil.copytree(bundle, folder, copy_function=os.link)
    for changed in (fault.form, "manifest.json", "parity.json"):
        (folder / changed).unlink(missing_ok=True)  # a link: writing would change the original
    shutil.copy(bundle / "manifest.json", folder)
    sound = onnx.load(bundle / fault.form, load_external_data=False)
    (folder / fault.form).write_bytes(fault.apply(sound).SerializeToString())
    rewrite_manifest(folder, fault.form)
    if fault.form == "decoder.onnx":
        (folder / "manifest.json").write_text(replace(read_manifest(folder), cpu_decoder=None).text())
    return folder
