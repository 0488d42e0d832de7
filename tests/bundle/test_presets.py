import pytest

from asap_export.bundle.presets import Preset, find_preset, presets

BILLIONS = {
    "llava-v1.6-vicuna-7b": 6.7,
    "llava-v1.6-vicuna-13b": 13.0,
    "llava-v1.6-mistral-7b": 7.2,
    "llava-v1.6-34b": 34.4,
    "llama3-llava-next-8b": 8.0,
    "llava-next-72b": 72.3,
    "llava-1.5-7b": 6.7,
}


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


@pytest.mark.parametrize("preset", presets().values(), ids=lambda preset: preset.name)
def test_the_limits_fit_the_positions(preset: Preset) -> None:
    if limits := preset.limits:
        tokens = limits.max_images * preset.max_visual_tokens + limits.max_text + limits.max_new_tokens
        assert tokens <= preset.max_position_embeddings
