"""Memory for a build, told from the sizes of the weights: 7B in numbers, no file opened."""

import pytest
from engine_specs import VICUNA

from asap_export.engine.build_memory import WeightSizes, check_memory, engine_weights, peak_memory
from asap_export.engine.parts import decoder_parts
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
    return WeightSizes(sizes, VICUNA.layers, 2, **form)


def parts(layers_per_engine: int | None = None, single: bool = False):
    return decoder_parts(VICUNA.layers, 2, layers_per_engine, single)


FP16 = vicuna(2)
INT4 = vicuna(0.5 + 2 / 64, quantized=True)


def test_every_weight_is_in_one_engine_and_the_head_in_the_last_part():
    one, two = engine_weights(FP16, parts(single=True)), engine_weights(FP16, parts())
    many = engine_weights(FP16, parts(8))
    assert one.keys() == {"vision_encoder", "embed_tokens", "decoder"}
    assert two.keys() == {"vision_encoder", "embed_tokens", "decoder.early", "decoder.late"}
    late = [f"decoder.late.{number}" for number in range(4)]
    assert many.keys() == {"vision_encoder", "embed_tokens", "decoder.early", *late}
    assert sum(one.values()) == sum(two.values()) == sum(many.values()) == sum(FP16.sizes.values())
    layer = FP16.sizes[f"{DECODER}.layers.0.mlp"]
    assert many["decoder.late.0"] == 8 * layer
    head = FP16.sizes["lm_head.weight"] + FP16.sizes[f"{DECODER}.norm.weight"]
    assert many["decoder.late.3"] == 6 * layer + head


@pytest.mark.parametrize(
    ("model", "split", "title", "measured"),
    [  # gigabytes, of decoders and parts of exactly this shape: docs/architecture.md
        (FP16, parts(1), "decoder.early.0", 0.83),
        (FP16, parts(), "decoder.early", 1.47),
        (FP16, parts(4), "decoder.late.0", 2.86),
        (FP16, parts(8), "decoder.late.0", 5.67),
        (INT4, parts(1), "decoder.early.0", 0.61),
        (INT4, parts(), "decoder.early", 0.94),
        (INT4, parts(single=True), "decoder", 8.07),
    ],
)
def test_the_estimate_is_above_what_was_measured_but_not_far(model, split, title, measured):
    estimated = peak_memory(model, split)[title] / GB
    assert measured < estimated < 1.1 * measured + 0.5


def test_too_little_memory_is_refused_with_what_would_help():
    with pytest.raises(UserError) as refusal:
        check_memory(FP16, parts(), 16 * GB)
    said = str(refusal.value)
    assert "of memory to build the engine of decoder.late, found 16.0 GB available" in said
    assert "quantize int4, layers_per_engine 21, a machine with more or engine ort" in said
    assert "check_memory=False" in said
    check_memory(FP16, parts(21), 16 * GB)
    with pytest.raises(UserError, match=r"engine of decoder.late.0, found 16.0 GB .* layers_per_engine 21"):
        check_memory(FP16, parts(22), 16 * GB)


def test_int4_fits_where_fp16_does_not():
    with pytest.raises(UserError):
        check_memory(FP16, parts(), 22 * GB)
    check_memory(INT4, parts(), 22 * GB)
    with pytest.raises(UserError, match=r"use layers_per_engine \d+, a machine"):  # it is int4 already
        check_memory(INT4, parts(), 6 * GB)


def test_where_no_split_helps_none_is_proposed():
    with pytest.raises(UserError, match=r"engine of vision_encoder, found 1.0 GB available; use a machine"):
        check_memory(INT4, parts(1), 1 * GB)
