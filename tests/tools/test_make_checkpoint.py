"""The command that writes random checkpoints."""

import subprocess
import sys
from pathlib import Path

from asap_export.checkpoint.checkpoint import open_checkpoint

TOOL = Path(__file__).parents[2] / "tools" / "make_checkpoint.py"


def test_a_small_part_of_a_public_model_opens_as_a_checkpoint(tmp_path):
    arguments = [
        "--like",
        "llava-v1.6-mistral-7b",
        "--scale",
        "0.02",
        "--layers",
        "1",
        "--output",
        tmp_path / "new",
    ]
    done = subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("0.01 GB of weights, fp16")
    spec = open_checkpoint(tmp_path / "new").spec
    assert (spec.layers, spec.hidden_size, spec.heads, spec.kv_heads, spec.dtype) == (1, 64, 4, 1, "fp16")


def test_a_scale_that_is_none_is_refused(tmp_path):
    arguments = ["--like", "llava-v1.6-mistral-7b", "--scale", "2", "--output", tmp_path / "new"]
    done = subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and "expected --scale in (0, 1], found 2" in done.stderr
    assert not (tmp_path / "new").exists()
