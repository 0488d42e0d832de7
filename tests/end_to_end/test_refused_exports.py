"""What an export refuses before the long work starts: one line, exit status 2, nothing on the disk."""

import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import installed_command
import pytest
from command import refused
from installed_command import COMMAND, ENVIRONMENT


@pytest.fixture
def checkpoint(random_checkpoint: Path, tmp_path: Path) -> Path:
    """The random checkpoint, to be damaged."""
    return shutil.copytree(random_checkpoint, tmp_path / "checkpoint")


def export_refused(folder: Path, *arguments: str | Path) -> str:
    return refused("--model", folder / "checkpoint", "--output", "out", *arguments, folder=folder)


def test_a_folder_that_is_no_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "config.json").unlink()
    assert "expected a checkpoint in" in export_refused(tmp_path)


def test_another_architecture(checkpoint: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config |= {"model_type": "llava_onevision", "architectures": ["LlavaOnevisionForConditionalGeneration"]}
    (checkpoint / "config.json").write_text(json.dumps(config))
    said = export_refused(tmp_path)
    assert "found LlavaOnevisionForConditionalGeneration" in said
    assert (
        "LlavaForConditionalGeneration or LlavaNextForConditionalGeneration "
        "(language model llama, mistral, qwen2; vision tower CLIP)" in said
    )


def test_a_name_that_is_no_folder_without_the_hub(tmp_path: Path) -> None:
    said = installed_command.refused("--model", "nowhere/nothing", "--output", "out", folder=tmp_path)
    assert "expected the folder nowhere/nothing, or, as HF_HUB_OFFLINE is set" in said


def test_a_missing_shard(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    assert "safetensors" in export_refused(tmp_path)


def test_a_truncated_shard(checkpoint: Path, tmp_path: Path) -> None:
    shard = checkpoint / "model.safetensors"
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content[:-1000])
    assert "model.safetensors" in export_refused(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--cpu-passes", "faster"],
            "expected --cpu-passes among fused-attention, blockwise-soft-mask, skipped-cut",
        ),
        (
            ["--cpu-passes", "int8-activations"],
            "expected int8-activations with --quantize and --engine ort",
        ),
        (["--keep", "0"], "expected --keep of at least 1 visual token, found 0"),
        (["--keep", "337"], "expected --keep of at most 336, the most visual tokens"),
        (["--keep-ratio", "0"], "expected --keep-ratio in (0, 1], found 0"),
        (["--budget", "50"], "expected --budget of at least 85 for 336 visual tokens"),
        (["--keep", "40", "--keep-ratio", "0.5"], "give only one of them"),
        (["--dense", "--keep", "40"], "expected no budget with --dense"),
        (["--dense", "--score", "last"], "expected no --score with --dense"),
        (["--method", "fastv", "--threshold", "0.5"], "expected no --threshold with --method fastv"),
        (["--method", "fastv", "--no-bimask"], "expected no --bimask with --method fastv"),
        (["--no-bimask", "--lambda-max", "1"], "expected no --lambda-max with --no-bimask"),
        (["--prune-after", "8"], "expected --prune-after below the model's 8 layers"),
        (["--compute-capability", "8.6"], "expected --compute-capability with --engine trt"),
        (["--layers-per-engine", "2"], "expected --layers-per-engine with --engine trt"),
        (["--single-engine"], "expected --single-engine with --engine trt"),
        (
            ["--engine", "trt", "--single-engine", "--layers-per-engine", "2"],
            "expected --single-engine or --layers-per-engine, found both",
        ),
        (["--no-check-memory"], "expected --no-check-memory with --engine trt"),
        (
            ["--engine", "trt", "--layers-per-engine", "8"],
            "expected --layers-per-engine of 1 to 7 for 8 layers",
        ),
        (
            ["--engine", "trt", "--layers-per-engine", "0"],
            "expected --layers-per-engine of 1 to 7 for 8 layers",
        ),
        (["--lambda-max", "2"], "expected lambda-max in (0, 1], found 2"),
        (["--max-batch", "0"], "found 0"),
        (["--max-text", "1000000"], "expected"),
        (["--engine", "trt", "--compute-capability", "7.3"], "7.3"),
        (["--output", "checkpoint/config.json/out"], "choose another --output"),
    ],
    ids=lambda case: "" if isinstance(case, str) else " ".join(case),
)
def test_options_that_do_not_fit(checkpoint: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    assert said in refused("--model", "checkpoint", "--output", "out", *arguments, folder=tmp_path)


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_a_tensorrt_that_is_not_installed(checkpoint: Path, tmp_path: Path) -> None:
    assert "tensorrt" in export_refused(tmp_path, "--engine", "trt", "--flavor", "tensorrt")


def test_a_full_disk(random_checkpoint: Path, tmp_path: Path) -> None:
    """In a mount namespace of its own, on a file system of two megabytes."""
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs -o size=2m none '{tmp_path}'"
    try:
        subprocess.run([*own, "sh", "-c", mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespaces here")
    export = f"'{COMMAND}' --model '{random_checkpoint}' --output '{tmp_path}/out'"
    script = f"{mount} && {export}; status=$?; ls -A '{tmp_path}'; exit $status"
    done = subprocess.run(
        [*own, "sh", "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    *stages, last = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert last.startswith("error: disk full: needed") and "choose another --output" in last
    assert not any("Traceback" in line for line in stages)
