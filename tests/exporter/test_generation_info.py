"""A checkpoint's generation settings in its bundle: honoured, or named where they are not."""

import json
from pathlib import Path
from typing import Any

import pytest
from short_checkpoint import write_short_checkpoint
from transformers import GenerationConfig

import asap_export
from asap_export.bundle import Bundle, GenerationInfo
from asap_export.exporter.generation import generation_info
from asap_export.exporter.plan import plan_export
from asap_export.exporter.request import ExportRequest


def info(**settings: Any) -> GenerationInfo:
    return generation_info(GenerationConfig.from_dict(settings), positions=4096)


def test_a_checkpoint_that_says_nothing_is_greedy() -> None:
    assert info(eos_token_id=2, transformers_version="4.39.0", _from_model_config=True) == GenerationInfo()


def test_what_is_honoured() -> None:
    settings = {
        "max_new_tokens": 64,
        "min_new_tokens": 2,
        "top_k": 7,
        "top_p": 0.8,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "no_repeat_ngram_size": 3,
    }
    assert info(**settings, stop_strings=["###", "</s>"]) == GenerationInfo(**settings, stop=("###", "</s>"))
    assert info(stop_strings="###").stop == ("###",)


@pytest.mark.parametrize(
    ("settings", "temperature", "top_k"),
    [
        ({"temperature": 0.6}, 0.0, 0),  # transformers is greedy too, and warns
        ({"do_sample": False, "temperature": 0.6, "top_k": 5}, 0.0, 5),
        ({"do_sample": True}, 1.0, 50),  # transformers' own
        ({"do_sample": True, "temperature": 0.6, "top_k": 5}, 0.6, 5),
        ({"do_sample": True, "top_k": 0}, 1.0, 0),
        ({"do_sample": True, "top_k": -1}, 1.0, 0),
    ],
)
def test_tokens_are_drawn_where_the_checkpoint_draws_them(
    settings: dict[str, Any], temperature: float, top_k: int
) -> None:
    found = info(**settings)
    assert (found.temperature, found.top_k) == (temperature, top_k)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 4},
        {"bad_words_ids": [[5]]},
        {"suppress_tokens": [3]},
        {"forced_eos_token_id": 2},
        {"guidance_scale": 1.5},
        {"max_length": 100},
        {"typical_p": 0.9},
        {"a_setting_of_tomorrow": 5},
    ],
    ids=str,
)
def test_what_is_left_out_is_named(settings: dict[str, Any]) -> None:
    assert info(**settings).left_out == tuple(settings)


@pytest.mark.parametrize(
    "settings",
    [{"num_beams": 1}, {"length_penalty": 1.0}, {"max_length": 4096}, {"use_cache": False}],
    ids=str,
)
def test_what_changes_nothing_is_not(settings: dict[str, Any]) -> None:
    assert info(**settings) == GenerationInfo()


@pytest.mark.long
def test_an_export_says_so_and_a_bundle_answers_so(tmp_path: Path) -> None:
    model = write_short_checkpoint(tmp_path / "model")
    settings = {"eos_token_id": 2, "max_new_tokens": 5, "repetition_penalty": 1.5, "num_beams": 3}
    (model / "generation_config.json").write_text(json.dumps(settings))
    plan = plan_export(ExportRequest(str(model), output=tmp_path / "made.bundle"))
    assert plan.missing["answers"] == "nothing honours these of generation_config.json: num_beams"

    asap_export.export(model=str(model), output=tmp_path / "made.bundle")
    found = Bundle.open(tmp_path / "made.bundle").manifest.generation
    assert found == GenerationInfo(5, repetition_penalty=1.5, left_out=("num_beams",))
    answer = asap_export.load(tmp_path / "made.bundle", provider="cpu").generate((), "Say something.")
    assert len(answer.token_ids) <= 5
