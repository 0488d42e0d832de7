"""A decoder in several engines, from the command line: the bundle runs as before and says what they hold."""

import json
from pathlib import Path

import pytest
from command import run
from installed_command import IMAGES
from short_checkpoint import write_short_checkpoint

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.mark.long
def test_quantized_layers_in_engines_of_their_own(tmp_path: Path) -> None:
    write_short_checkpoint(tmp_path / "short")
    options = (
        "--engine",
        "trt",
        "--compute-capability",
        "8.6",
        "--quantize",
        "int4",
        "--layers-per-engine",
        "2",
        "--verbose",
    )
    said = run("--model", "short", "--output", "out", *options, folder=tmp_path).stdout
    assert "decoder.early" in said and "layers 0 to 1" in said and "layers 2 to 2" in said

    facts = json.loads(run("inspect", "out", "--json", folder=tmp_path).stdout)
    engines = {engine["file"]: engine["part"] for engine in facts["engines"]}
    assert list(engines) == [
        f"engines/{name}.tensorrt_rtx.engine"
        for name in ("vision_encoder", "embed_tokens", "decoder.early", "decoder.late")
    ]
    parts = [part for part in engines.values() if part]
    assert [part["layers"] for part in parts] == [[0, 1], [2, 2]]
    assert "kept_index" in {tensor["name"] for tensor in parts[1]["inputs"]}
    assert set(engines) <= set(facts["files"])
    text = run("inspect", "out", folder=tmp_path).stdout
    assert "part 2 of 2, layers 2 to 2, takes" in text and "hidden_states.2" in text

    # ONNX Runtime runs the whole graph; the parts' own graphs are gone.
    assert {path.name for path in (tmp_path / "out").glob("*.onnx")} == {
        "preprocess.onnx", "vision_encoder.onnx", "embed_tokens.onnx", "decoder.onnx", "decoder.cpu.onnx",
        "decoder.cuda.onnx",
    }  # fmt: skip
    assert not list((tmp_path / "out").glob(".*"))
    image = IMAGES / "mat.png"
    run("run", "out", "--image", image, "--prompt", "What?", "--max-new-tokens", "2", folder=tmp_path)
