"""docs/python.md: its examples run, one behind the other, and print what they say they print."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from installed_command import ENVIRONMENT, IMAGES
from short_checkpoint import write_short_checkpoint

import asap_export

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_every_example_of_the_page_runs(demo_bundle: Path, tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    program = "\n".join(examples)
    export = 'asap_export.export(output="demo.bundle")\n'
    assert len(examples) == 9 and program.count(export) == 1
    shutil.copytree(demo_bundle, tmp_path / "demo.bundle")  # the same export, which another test has made
    for image in ("things.png", "mat.png"):
        shutil.copy(IMAGES / image, tmp_path)
    command = [sys.executable, "-c", program.replace(export, "")]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout.splitlines()
    assert printed[:2] == ["2", "154 of 922 visual tokens kept"]
    assert "expected temperature of 0 or more, found -1; 0 is greedy" in printed


def test_an_export_from_python_is_what_was_asked_for(tmp_path: Path) -> None:
    checkpoint = write_short_checkpoint(tmp_path / "short")
    bundle = asap_export.export(checkpoint, tmp_path / "out", dtype="fp32", keep=40, max_new_tokens=9)
    manifest = bundle.manifest
    assert (bundle.path, manifest.dtype, manifest.budget.keep) == (tmp_path / "out", "fp32", 40)
    assert manifest.limits.max_new_tokens == 9 and manifest.pruning.prunes
    with pytest.raises(asap_export.UserError, match="choose another output or pass overwrite"):
        asap_export.export(checkpoint, tmp_path / "out")
    answer = asap_export.load(bundle.path).generate(IMAGES / "sign.png", "What?", max_new_tokens=2)
    assert answer.kept_visual_tokens == 40
