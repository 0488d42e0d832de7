"""The page on other tools: Polygraphy runs every graph with the inputs that the example gives it."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "polygraphy_data.py"
POLYGRAPHY = Path(sys.executable).with_name("polygraphy")


@pytest.mark.parametrize("graph", ["preprocess", "vision_encoder", "embed_tokens", "decoder"])
def test_a_graph_runs(pruned_bundle: Path, graph: str) -> None:
    command = [POLYGRAPHY, "run", f"{graph}.onnx", "--onnxrt", "--data-loader-script", f"{EXAMPLE}:{graph}"]
    done = subprocess.run(command, cwd=pruned_bundle, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "PASSED" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("fixture", ["untrimmed_bundle", "llava_1_5_bundle"])
def test_every_form_of_the_decoder_runs(fixture: str, request: pytest.FixtureRequest) -> None:
    bundle = request.getfixturevalue(fixture)
    for file in sorted(bundle.glob("decoder*.onnx")):
        # Caches of the first may be longer than what they hold; the others take what parts hand on.
        if file.name == "decoder.cpu.onnx" or ".early." in file.name or ".late." in file.name:
            continue
        command = [POLYGRAPHY, "run", file.name, "--onnxrt", "--data-loader-script", f"{EXAMPLE}:decoder"]
        done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and "PASSED" in done.stdout, done.stdout + done.stderr
