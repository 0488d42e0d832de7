"""Print what building and running the engines of each preset takes, estimated from its sizes.

    python tools/engine_memory.py

Building: the estimate that an export compares with the memory there is (asap_export/engine/build_memory.py), of
the largest of its engines: the decoder in two, in fp16, or with its linear layers in int4 and the rest in fp16.
Running: all weights, and the KV caches of as many rows as the preset's limits allow, each at the default budget
with the most images, text and answer. What TensorRT's contexts take beside that is not known without a device.
"""

from collections.abc import Iterator

from asap_export.bundle.presets import Preset, presets
from asap_export.engine import WeightSizes, decoder_parts, peak_memory
from asap_export.pruning.config import DEFAULT_KEEP_RATIO, PruningConfig

CUT = PruningConfig().prune_after
TOWER, TOWER_WIDTH = (
    304_000_000,
    1024,
)  # weights and width of CLIP ViT-L at 336 pixels, which all presets have
FP16, INT4 = 2.0, 0.5 + 2 / 64  # bytes of a weight; a scale for each 64


def sizes(preset: Preset, linear: float) -> dict[str, int]:
    """Bytes of weights by name, linear layers of the decoder with ``linear`` bytes each."""
    shape = preset.decoder
    heads = 2 * shape.hidden_size * shape.head_dim * (shape.heads + shape.kv_heads)
    layer = heads + 3 * shape.hidden_size * shape.intermediate_size
    vocabulary = shape.vocab_size * shape.hidden_size
    found = {f"model.language_model.layers.{n}.weights": int(linear * layer) for n in range(shape.layers)}
    return found | {
        "model.language_model.embed_tokens.weight": int(FP16 * vocabulary),
        "lm_head.weight": int(linear * vocabulary),
        "model.vision_tower.weights": int(FP16 * TOWER),
        "model.multi_modal_projector.weights": int(
            FP16 * shape.hidden_size * (TOWER_WIDTH + shape.hidden_size)
        ),
    }


def build(preset: Preset, linear: float) -> int:
    shape = preset.decoder
    model = WeightSizes(sizes(preset, linear), shape.layers, CUT, linear == INT4, preset.limits.max_batch)
    return max(peak_memory(model, decoder_parts(shape.layers, CUT)).values())


def caches(preset: Preset) -> int:
    shape, limits = preset.decoder, preset.limits
    kept = round(DEFAULT_KEEP_RATIO * preset.max_visual_tokens * limits.max_images)
    tokens = kept + limits.max_text + limits.max_new_tokens
    return limits.max_batch * tokens * 2 * shape.layers * shape.kv_heads * shape.head_dim * int(FP16)


def rows() -> Iterator[tuple[str, ...]]:
    for preset in presets().values():
        cache = caches(preset)
        weights = [sum(sizes(preset, linear).values()) for linear in (FP16, INT4)]
        numbers = (build(preset, FP16), build(preset, INT4), weights[0] + cache, weights[1] + cache, cache)
        yield preset.name, *(f"{number / 1e9:.1f}" for number in numbers)


def main() -> None:
    print("| GB | build, fp16 | build, int4 | run, fp16 | run, int4 | of it caches |")
    print("|---|--:|--:|--:|--:|--:|")
    for row in rows():
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
