"""Checkpoints in plain numbers: one of the public ones, and a tiny one of few positions."""

from asap_export.model.anyres import TileGeometry, max_visual_tokens
from asap_export.spec import ModelSpec

PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))


def spec(
    tile_size=336, patch_size=14, grid_pinpoints=PINPOINTS, positions=4096, class_token=False, **sizes
) -> ModelSpec:
    """LLaVA-NeXT 7B on Vicuna, unless told otherwise."""
    of_decoder = {
        "hidden_size": 4096, "intermediate_size": 11008, "layers": 32, "heads": 32, "kv_heads": 32,
        "head_dim": 128, "vocab_size": 32064,
    }  # fmt: skip
    return ModelSpec(
        architecture="LlavaNextForConditionalGeneration",
        text_model_type="llama",
        **(of_decoder | sizes),
        max_position_embeddings=positions,
        image_token_id=32000,
        eos_token_ids=(2,),
        bos_token_id=1,
        pad_token_id=None,
        tile_size=tile_size,
        patch_size=patch_size,
        grid_pinpoints=grid_pinpoints,
        class_token=class_token,
        max_visual_tokens=max_visual_tokens(TileGeometry(tile_size, patch_size, grid_pinpoints, class_token)),
        dtype="fp16",
    )


VICUNA = spec()
MISTRAL = spec(positions=32768, kv_heads=8)
TINY = spec(56, 7, ((56, 112), (112, 56), (112, 112)), positions=4096, layers=8, kv_heads=2, head_dim=64)
LLAVA_1_5 = spec(grid_pinpoints=(), class_token=True)
