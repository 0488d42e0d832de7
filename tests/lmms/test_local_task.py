"""lmms-eval itself, on a task in a folder: its registry, its requests, its scoring and its report."""

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from installed_command import ENVIRONMENT, IMAGES

from asap_export.runtime.model import load

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: pip install 'asap-export[lmms]'")

TASK = """
task: mats
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: {output_type}
doc_to_visual: !function visuals.images
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  max_new_tokens: 6
  temperature: 0
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 0
"""
VISUALS = """
from PIL import Image


def images(document):
    return [Image.open(document["image"]).convert("RGB")]
"""


def evaluate(folder: Path, bundle: Path, *arguments: str, output_type: str = "generate_until"):
    """The command line of lmms-eval, on the documents in ``folder``."""
    (folder / "mats.yaml").write_text(TASK.format(data=folder / "mats.jsonl", output_type=output_type))
    (folder / "visuals.py").write_text(VISUALS)
    command = [sys.executable, "-m", "lmms_eval", "--model", "asap_export", "--tasks", "mats"]
    command += ["--model_args", f"bundle={bundle},provider=cpu,keep=40", "--include_path", str(folder)]
    command += ["--output_path", str(folder / "results"), "--log_samples", *arguments]
    environment = ENVIRONMENT | {"HF_HOME": str(folder / "home"), "HF_DATASETS_OFFLINE": "1"}
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture
def documents(tmp_path: Path, pruned_bundle: Path) -> Path:
    """Two questions, of which the first has the bundle's own answer for the right one."""
    if not entry_points(group="lmms_eval.models", name="asap_export"):
        pytest.skip("asap-export's entry point is not installed: install the package anew")
    image, question = str(IMAGES / "mat.png"), "What is on the mat?"
    right = load(pruned_bundle, "cpu").generate([image], question, max_new_tokens=6, keep=40).text
    rows = [{"image": image, "question": question, "answer": answer} for answer in (right.strip(), "a zebra")]
    (tmp_path / "mats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_bundle_is_scored_on_a_local_task(documents: Path, pruned_bundle: Path):
    done = evaluate(documents, pruned_bundle)
    assert done.returncode == 0, done.stderr
    (results,) = documents.glob("results/**/*results.json")
    found = json.loads(results.read_text())["results"]["mats"]
    assert found["exact_match,none"] == 0.5


def test_log_likelihoods_are_refused_in_one_line(documents: Path, pruned_bundle: Path):
    done = evaluate(documents, pruned_bundle, output_type="loglikelihood")
    assert "found loglikelihood: a bundle gives logits of the last position only" in done.stdout + done.stderr
