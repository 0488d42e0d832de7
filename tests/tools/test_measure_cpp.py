"""The C++ runtime beside the Python one, as ``tools/measure_cpp.py`` measures them: ratios within one run."""

import json
import subprocess
import sys
from pathlib import Path

from cpp.programs import BUILD, needs_programs
from installed_command import ENVIRONMENT

TOOL = Path(__file__).parents[2] / "tools" / "measure_cpp.py"


@needs_programs
def test_cpp_is_faster_and_smaller_and_adds_little_to_the_runtime(demo_bundle: Path, tmp_path: Path) -> None:
    options = ["--rounds", "1", "--repeat", "4", "--threads", "1", "--build", BUILD, "--json", "facts.json"]
    command = [sys.executable, TOOL, demo_bundle, *options]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "time to first token" in done.stdout

    facts = json.loads((tmp_path / "facts.json").read_text())
    for name in ("start_up", "peak_memory"):
        assert facts["cpp"][name] < facts["python"][name]
    # Nearly all of these is ONNX Runtime's work, the same in both, and beside other tests either may be disturbed.
    for name in ("first_token", "per_token"):
        assert 0 < facts["cpp"][name] < 2 * facts["python"][name]
    assert facts["overhead"]["overhead"] < 0.02
