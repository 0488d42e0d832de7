import json
import re
from pathlib import Path
from typing import Any

import installed_command
from command import refused, run
from installed_command import IMAGES
from short_checkpoint import write_short_checkpoint


def inspected(bundle: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(run("inspect", bundle, "--json").stdout)
    return facts


def with_normalizer(checkpoint: Path, kind: str) -> Path:
    file = checkpoint / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    file.write_text(json.dumps(tokenizer | {"normalizer": {"type": kind}}))
    return checkpoint


def test_a_checkpoint_becomes_a_bundle_with_engines_that_answers(tmp_path: Path) -> None:
    model = write_short_checkpoint(tmp_path / "short")
    export = ("--model", model, "--engine", "trt", "--keep", "40", "--compute-capability", "8.9", "-v")
    done = installed_command.run(*export, folder=tmp_path)
    bundle = tmp_path / "short.bundle"
    assert "asap-export verify short.bundle\n" in done.stdout
    assert re.search(r"^dense +336 ", done.stdout, re.MULTILINE)
    assert re.search(r"^pruned +40 ", done.stdout, re.MULTILINE)
    assert "cut after layer 2 of 3" in done.stdout
    assert " copied (" in done.stdout and "profiles context and generation" in done.stdout
    assert "for compute capability 8.9\n" in done.stdout
    assert "Export decoder: " in done.stderr and "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"short", "short.bundle"}

    facts = inspected(bundle)
    assert [engine["file"] for engine in facts["engines"]] == [
        f"engines/{title}.tensorrt_rtx.engine"
        for title in ("vision_encoder", "embed_tokens", "decoder.early", "decoder.late")
    ]
    assert {tuple(engine["compute_capabilities"]) for engine in facts["engines"]} == {("8.9",)}
    answer = run("run", bundle, "--image", IMAGES / "sign.png", "--prompt", "What?", "--max-new-tokens", "2")
    assert "40 of 336 visual tokens, " in answer.stderr
    assert "expected no" in refused(*export, folder=tmp_path)


def test_every_option_arrives_in_the_bundle(tmp_path: Path) -> None:
    pruning = "--score text --lambda-max 0.25 --threshold 0.8 --no-merge --prune-after 1 --no-trim-early-kv"
    limits = "--max-batch 2 --max-images 3 --max-text 100 --max-new-tokens 32"
    model = with_normalizer(write_short_checkpoint(tmp_path / "short"), "NFKC")
    options = f"--model {model} -o out --dtype fp32 --keep-ratio 0.25 {pruning} {limits}"
    said = " ".join(run(*options.split(), folder=tmp_path).stdout.split())
    assert "tokenizer the C++ runtime takes token ids only: expected NFC" in said
    facts = inspected(tmp_path / "out")
    assert facts["dtype"] == "fp32" and facts["budget"]["ratio"] == 0.25
    assert facts["pruning"] == {
        "method": "asap",
        "prune_after": 1,
        "score": "text",
        "lambda_max": 0.25,
        "threshold": 0.8,
        "merge": False,
        "bidirectional": True,
        "trim_early_kv": False,
        "seed": 0,
    }
    assert facts["limits"] == {"max_batch": 2, "max_images": 3, "max_text": 100, "max_new_tokens": 32}
    assert "early_past_sequence" in str(facts["graphs"]) and facts["engines"] == []
