"""Memory for a build, told from the sizes of the weights: 7B in numbers, no file opened."""

import pytest
from engine_specs import VICUNA

from asap_export.engine.build_memory import WeightSizes, check_memory, engine_weights, peak_memory
from asap_export.errors import UserError

GB = 10**9
DECODER = "model.language_model"


def vicuna(bytes_per_weight: float, **form) -> WeightSizes:
    """Vicuna 7B: its linear layers with so many bytes per weight, the rest in float16."""
    width, inner, vocabulary = VICUNA.hidden_size, VICUNA.intermediate_size, VICUNA.vocab_size
    layer = int((4 * width * width + 3 * width * inner) * bytes_per_weight)
    sizes = {f"{DECODER}.layers.{number}.mlp": layer for number in range(VICUNA.layers)}
    sizes |= {
        f"{DECODER}.embed_tokens.weight": 2 * width * vocabulary,
        f"{DECODER}.norm.weight": 2 * width,
        "lm_head.weight": int(width * vocabulary * bytes_per_weight),
        "model.vision_tower.weights": 606_000_000,
        "model.multi_modal_projector.linear_1.weight": 42_000_000,
        "model.image_newline": 8192,
    }
    return WeightSizes(sizes, VICUNA.layers, **form)


FP16 = vicuna(2)
INT4 = vicuna(0.5 + 2 / 64, quantized=True)


def test_every_weight_is_in_one_engine_and_the_head_in_the_last_part():
    whole, parts = engine_weights(FP16, None), engine_weights(FP16, 10)
    assert whole.keys() == {"vision_encoder", "embed_tokens", "decoder"}
    assert parts.keys() == {"vision_encoder", "embed_tokens", *(f"decoder.{number}" for number in range(4))}
    assert sum(whole.values()) == sum(parts.values()) == sum(FP16.sizes.values())
    assert parts["decoder.0"] == 10 * FP16.sizes[f"{DECODER}.layers.0.mlp"]
    head = FP16.sizes["lm_head.weight"] + FP16.sizes[f"{DECODER}.norm.weight"]
    assert parts["decoder.3"] == 2 * FP16.sizes[f"{DECODER}.layers.0.mlp"] + head


@pytest.mark.parametrize(
    ("model", "layers", "part", "measured"),
    [  # gigabytes, of decoders and parts of exactly this shape: docs/architecture.md
        (FP16, 1, "decoder.0", 0.83),
        (FP16, 2, "decoder.0", 1.47),
        (FP16, 4, "decoder.0", 2.86),
        (FP16, 8, "decoder.0", 5.67),
        (INT4, 1, "decoder.0", 0.61),
        (INT4, 2, "decoder.0", 0.94),
        (INT4, None, "decoder", 8.07),
    ],
)
def test_the_estimate_is_above_what_was_measured_but_not_far(model, layers, part, measured):
    estimated = peak_memory(model, layers)[part] / GB
    assert measured < estimated < 1.1 * measured + 0.5


def test_too_little_memory_is_refused_with_what_would_help():
    with pytest.raises(UserError) as refusal:
        check_memory(FP16, None, 16 * GB)
    said = str(refusal.value)
    assert "of memory to build the engine of decoder, found 16.0 GB available" in said
    assert "quantize int4, layers_per_engine 21, a machine with more or engine ort" in said
    assert "check_memory=False" in said
    check_memory(FP16, 21, 16 * GB)
    with pytest.raises(UserError, match=r"engine of decoder.0, found 16.0 GB .* layers_per_engine 21"):
        check_memory(FP16, 22, 16 * GB)


def test_int4_fits_where_fp16_does_not():
    with pytest.raises(UserError):
        check_memory(FP16, None, 22 * GB)
    check_memory(INT4, None, 22 * GB)
    with pytest.raises(UserError, match=r"use layers_per_engine \d+, a machine"):  # it is int4 already
        check_memory(INT4, None, 6 * GB)


def test_where_no_split_helps_none_is_proposed():
    with pytest.raises(UserError, match=r"engine of vision_encoder, found 1.0 GB available; use a machine"):
        check_memory(INT4, 1, 1 * GB)
