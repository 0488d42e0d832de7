"""``tools/measure_cpp.py`` measures both runtimes; which is faster is no test's business."""

import json
import subprocess
import sys
from pathlib import Path

from cpp.programs import BUILD, needs_programs
from installed_command import ENVIRONMENT

TOOL = Path(__file__).parents[2] / "tools" / "measure_cpp.py"


@needs_programs
def test_both_runtimes_are_measured(demo_bundle: Path, tmp_path: Path) -> None:
    options = ["--rounds", "1", "--repeat", "4", "--threads", "1", "--build", BUILD, "--json", "facts.json"]
    command = [sys.executable, TOOL, demo_bundle, *options]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "time to first token" in done.stdout

    facts = json.loads((tmp_path / "facts.json").read_text())
    for runtime in ("cpp", "python"):
        assert all(value > 0 for value in facts[runtime].values())
    assert facts["cpp"]["peak_memory"] < facts["python"]["peak_memory"]
    assert facts["overhead"]["overhead"] > 0
