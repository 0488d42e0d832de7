import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bundle_cases import write_bundle
from rich.console import Console

from asap_export.errors import UserError
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.report.flops import flops_facts, flops_table

VICUNA_7B_CONFIG = {  # public configurations leave out what is a default of their model type
    "architectures": ["LlavaNextForConditionalGeneration"],
    "model_type": "llava_next",
    "torch_dtype": "float16",
    "image_token_index": 32000,
    "text_config": {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096},
    "vision_config": {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14},
}
LLAVA_1_5_CONFIG = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "text_config": {"model_type": "llama", "vocab_size": 32064},
}
ROWS = json.loads((Path(__file__).parents[1] / "pruning/flops_reference.json").read_text())["rows"]


def rendering(facts: dict[str, Any]) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(flops_table(facts))
    return capture.get()


def config_file(folder: Path, content: dict[str, Any]) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["keep"]], ids=lambda row: f"{row['model']}-{row['keep']}"
)
def test_the_papers_numbers_come_out_of_the_presets(row: dict[str, Any]) -> None:
    preset = {"LLaVA-NeXT-7B": "llava-hf/llava-v1.6-vicuna-7b-hf", "LLaVA-1.5-7B": "llava-1.5-7b"}[
        row["model"]
    ]
    facts = flops_facts(preset, budget=Budget(keep=row["keep"]), visual_tokens=row["v"])
    (dense,) = (other["flops_T"] for other in ROWS if other["model"] == row["model"] and not other["keep"])
    assert round(facts["dense_tflops"], 3) == dense
    assert round(facts["pruned_tflops"], 3) == row["flops_T"]
    assert f"{row['flops_T']:.3f} TFLOPs" in rendering(facts)


def test_a_bare_configuration_gives_what_the_preset_gives(tmp_path: Path) -> None:
    file = config_file(tmp_path, VICUNA_7B_CONFIG)
    expected = flops_facts("llava-v1.6-vicuna-7b") | {"model": None}
    assert expected["visual_tokens"] == 2928
    for source in (file, str(file), tmp_path):
        assert flops_facts(source) | {"model": None} == expected


def test_a_configuration_of_llava_1_5_can_be_counted_too(tmp_path: Path) -> None:
    facts = flops_facts(config_file(tmp_path, LLAVA_1_5_CONFIG), budget=Budget(keep=167), dtype="fp16")
    assert facts | {"model": "llava-1.5-7b"} == flops_facts("llava-1.5-7b", budget=Budget(keep=167))
    assert facts["visual_tokens"] == 576
    full = LLAVA_1_5_CONFIG | {"vision_feature_select_strategy": "full"}
    assert flops_facts(config_file(tmp_path, full))["visual_tokens"] == 577


def test_the_demo_checkpoint_is_the_default() -> None:
    facts = flops_facts(None)
    assert facts["model"] == "demo"
    assert 0 < facts["pruned_tflops"] < facts["dense_tflops"] < facts["whole_sequence"]["dense_tflops"]


def test_a_bundle_brings_its_own_budget_and_pruning(tmp_path: Path) -> None:
    facts = flops_facts(write_bundle(tmp_path / "out").path)
    assert (facts["visual_tokens"], facts["keep"], facts["kv_bytes"]["dtype"]) == (336, 40, "fp32")
    assert facts["layer_average"] == (2 * 336 + 6 * 40) / 8
    assert flops_facts(tmp_path / "out", budget=Budget(ratio=0.5))["keep"] == 168


def test_keep_and_layer_average_are_both_said() -> None:
    facts = flops_facts("llava-v1.6-vicuna-7b", visual_tokens=2880, budget=Budget(layer_average=640))
    assert "491 kept after 2 layers" in rendering(facts) and "640.3 per layer on average" in rendering(facts)


def test_early_caches_may_stay_full() -> None:
    facts = flops_facts("llava-1.5-7b", pruning=PruningConfig(trim_early_kv=False), budget=Budget(keep=96))
    assert facts["kv_bytes"]["pruned"] == (2 * (576 + 64) + 30 * (96 + 64)) * 2 * 4096 * 2
    assert "early layers full" in rendering(facts)


def test_a_smaller_image_keeps_all_its_tokens() -> None:
    facts = flops_facts("llava-v1.6-vicuna-7b", visual_tokens=300, budget=Budget(keep=478))
    assert facts["keep"] == 300 and facts["pruned_tflops"] == facts["dense_tflops"]


def test_dense_is_what_no_pruning_costs() -> None:
    facts = flops_facts("llava-1.5-7b", pruning=PruningConfig(method="none"))
    assert facts["keep"] == 576 and facts["pruned_tflops"] == facts["dense_tflops"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"budget": Budget(keep=2929)}, "expected keep of at most 2928 visual tokens, found 2929"),
        ({"budget": Budget(layer_average=4000)}, "expected budget of at most 2928 visual tokens"),
        ({"budget": Budget(layer_average=100)}, "expected budget of at least"),
        ({"visual_tokens": 0}, "expected at least 1 visual"),
        ({"pruning": PruningConfig(prune_after=32)}, "expected prune-after below the model's 32 layers"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        flops_facts("llava-v1.6-vicuna-7b", **options)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"model_type": "bert"}', '{"model_type": "llava", "text_config": 3}']
)
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="expected"):
        flops_facts(tmp_path / "config.json")


def test_presets_are_counted_without_torch() -> None:
    code = (
        "import sys; from asap_export.report.flops import flops_facts; flops_facts('llava-1.5-7b');"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
