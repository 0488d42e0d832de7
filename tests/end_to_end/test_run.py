import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import installed_command
import pytest
from command import refused, run
from installed_command import IMAGES

MAT, SIGN = IMAGES / "mat.png", IMAGES / "sign.png"
QUESTION = ("--prompt", "What is on the mat?", "--max-new-tokens", "6")


@pytest.fixture(scope="module")
def answered(pruned_bundle: Path) -> subprocess.CompletedProcess[str]:
    return installed_command.run("run", pruned_bundle, "--image", MAT, *QUESTION)


def test_the_answer_is_on_stdout_and_what_it_took_on_stderr(
    pruned_bundle: Path, answered: subprocess.CompletedProcess[str]
) -> None:
    done = answered
    assert done.stdout.strip() and done.stdout.endswith("\n")
    cut, line = done.stderr.splitlines()
    assert cut == "note: cut at --max-new-tokens 6; raise it for more"
    assert re.fullmatch(r"45 of 268 visual tokens, first token \d+\.\d\d s, [\d.,]+ tokens/s, cpu", line)
    assert run("run", pruned_bundle, "--image", MAT, *QUESTION, "--no-stream").stdout == done.stdout


def test_the_same_from_python_in_three_lines(
    pruned_bundle: Path, answered: subprocess.CompletedProcess[str]
) -> None:
    program = f"""
import asap_export
model = asap_export.load({str(pruned_bundle)!r})
print(model.generate([{str(MAT)!r}], "What is on the mat?", max_new_tokens=6).text)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=installed_command.ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stdout == answered.stdout


def test_a_request_may_bring_its_own_budget_and_several_images(pruned_bundle: Path) -> None:
    two = ("run", pruned_bundle, "--image", MAT, "--image", SIGN, *QUESTION, "--json")
    answer = json.loads(run(*two, "--keep", "100").stdout)
    assert (answer["kept_visual_tokens"], answer["visual_tokens"]) == (100, 268 + 336)
    assert 1 <= len(answer["token_ids"]) <= 6 and answer["timings"]["prefill"] > 0


def test_an_image_smaller_than_the_budget_keeps_all_its_tokens_and_the_output_says_so(
    pruned_bundle: Path, dense_bundle: Path
) -> None:
    said = run("run", pruned_bundle, "--image", MAT, *QUESTION, "--keep", "300").stderr
    assert "all 268 visual tokens fit, " in said
    said = run("run", dense_bundle, "--image", MAT, *QUESTION).stderr
    assert "268 visual tokens (dense), " in said


def test_sampling_with_a_seed_repeats_itself(pruned_bundle: Path) -> None:
    sampled = ("--temperature", "2", "--top-p", "0.95", "--seed", "7", "--no-stream")
    first, again = (run("run", pruned_bundle, *QUESTION, *sampled).stdout for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--image", "nowhere.png", "--prompt", "What?"],
            "expected an image file at nowhere.png, found nothing",
        ),
        (
            ["--image", "text.png", "--prompt", "What?"],
            "expected an image in text.png, found another kind of file",
        ),
        (["--image", "cut.png", "--prompt", "What?"], "expected a readable image in cut.png"),
        (["--image", str(MAT), "--prompt", "<image> and <image>?"], "found 2 for 1 image"),
        (["--image", str(MAT), "--image", str(MAT), "--prompt", "<image>?"], "found 1 for 2 images"),
        ([], "expected --prompt TEXT, found none"),
        (["--prompt", "What?", "--provider", "tensorrt"], "expected TensorRT engines"),
        (
            ["--prompt", "What?", "--provider", "npu"],
            "is not one of 'auto', 'cpu', 'openvino', 'cuda', 'tensorrt'",
        ),
        (["--prompt", "What? " * 5000], "expected at most"),
    ],
    ids=lambda case: "" if isinstance(case, str) else " ".join(case)[:40],
)
def test_wrong_input_is_refused(pruned_bundle: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(MAT.read_bytes()[:2000])
    assert said in refused("run", pruned_bundle, *arguments, folder=tmp_path)


@pytest.mark.parametrize("command", [("run", "--prompt", "What?"), ("verify",)], ids=lambda words: words[0])
def test_an_altered_bundle_is_refused(pruned_bundle: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    copy = shutil.copytree(pruned_bundle, tmp_path / "copy")
    graph = copy / "decoder.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    assert "of decoder.onnx, found" in refused(*command, copy, folder=tmp_path)


@pytest.mark.parametrize("command", ["inspect", "flops"])
def test_a_bundle_with_a_file_removed_is_refused(pruned_bundle: Path, tmp_path: Path, command: str) -> None:
    copy = shutil.copytree(pruned_bundle, tmp_path / "copy")
    (copy / "processor" / "tokenizer.json").unlink()
    assert "expected processor/tokenizer.json in" in refused(command, copy, folder=tmp_path)
