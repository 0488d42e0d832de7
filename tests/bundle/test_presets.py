from dataclasses import asdict, replace

import pytest
from engine_specs import VICUNA

from asap_export.bundle.presets import Preset, find_preset, presets
from asap_export.engine import check_limits, default_limits
from asap_export.pruning.config import DEFAULT_KEEP_RATIO, Budget, PruningConfig
from asap_export.spec import ModelSpec

BILLIONS = {
    "llava-v1.6-vicuna-7b": 6.7,
    "llava-v1.6-vicuna-13b": 13.0,
    "llava-v1.6-mistral-7b": 7.2,
    "llava-v1.6-34b": 34.4,
    "llama3-llava-next-8b": 8.0,
    "llava-next-72b": 72.3,
    "llava-next-110b": 111.2,
    "llava-1.5-7b": 6.7,
    "llava-1.5-13b": 13.0,
}


def spec_of(preset: Preset) -> ModelSpec:
    """LLaVA-NeXT with the preset's decoder; what a preset does not say is as in all of them."""
    spec = replace(VICUNA, max_position_embeddings=preset.max_position_embeddings, **asdict(preset.decoder))
    one_tile = preset.name.startswith("llava-1.5")
    return replace(spec, max_visual_tokens=preset.max_visual_tokens) if one_tile else spec


@pytest.mark.parametrize(
    "name", ["llava-v1.6-vicuna-7b", "llava-hf/llava-v1.6-vicuna-7b-hf", "LLaVA-v1.6-Vicuna-7B"]
)
def test_a_preset_is_found_by_name_and_by_hub_id(name: str) -> None:
    preset = find_preset(name)
    assert preset and preset.decoder.layers == 32 and preset.max_visual_tokens == 2928


def test_an_unknown_name_has_no_preset() -> None:
    assert find_preset("someone/llava-v1.6-vicuna-7b-finetuned") is None


@pytest.mark.parametrize("preset", presets().values(), ids=lambda preset: preset.name)
def test_the_sizes_add_up_to_the_parameters_in_the_name(preset: Preset) -> None:
    shape = preset.decoder
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = shape.hidden_size * (2 * queries + 2 * keys + 3 * shape.intermediate_size)
    parameters = shape.layers * layer + 2 * shape.vocab_size * shape.hidden_size
    assert parameters / 1e9 == pytest.approx(BILLIONS[preset.name], rel=0.01)
    assert queries == shape.hidden_size


def test_every_public_checkpoint_is_there() -> None:
    assert set(presets()) == set(BILLIONS)
    assert all(preset.model == f"llava-hf/{name}-hf" for name, preset in presets().items())


@pytest.mark.parametrize("preset", presets().values(), ids=lambda preset: preset.name)
def test_the_limits_hold_for_engines_under_the_default_budget(preset: Preset) -> None:
    spec = spec_of(preset)
    check_limits(preset.limits, spec, PruningConfig(), Budget(ratio=DEFAULT_KEEP_RATIO), with_engines=True)
    assert default_limits(spec, preset.limits) == preset.limits


@pytest.mark.parametrize("preset", presets().values(), ids=lambda preset: preset.name)
def test_the_most_visual_tokens_are_those_of_24_by_24_patches(preset: Preset) -> None:
    spec = spec_of(preset)
    one_tile = preset.name.startswith("llava-1.5")
    assert preset.max_visual_tokens == (24 * 24 if one_tile else spec.max_visual_tokens)
