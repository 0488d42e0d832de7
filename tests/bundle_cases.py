"""A small bundle to damage: real files, invented content."""

from pathlib import Path

from asap_export.bundle import (
    Bundle,
    BundleWriter,
    CpuDecoder,
    EngineInfo,
    GenerationInfo,
    GraphInfo,
    Limits,
    Manifest,
    Profile,
    PromptInfo,
    ShapeRange,
    Source,
    TemplateInfo,
    TensorInfo,
    TurnParts,
    tool_versions,
)
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.spec import ModelSpec

SPEC = ModelSpec(
    architecture="LlavaNextForConditionalGeneration",
    text_model_type="llama",
    hidden_size=256,
    intermediate_size=512,
    layers=8,
    heads=4,
    kv_heads=2,
    head_dim=64,
    vocab_size=1000,
    max_position_embeddings=4096,
    image_token_id=999,
    eos_token_ids=(2,),
    bos_token_id=1,
    pad_token_id=None,
    tile_size=56,
    patch_size=7,
    grid_pinpoints=((56, 112), (112, 112)),
    class_token=False,
    max_visual_tokens=336,
    dtype="fp32",
)

FILES = {
    "config.json": "{}",
    "preprocess.onnx": "resizing",
    "vision_encoder.onnx": "tower",
    "embed_tokens.onnx": "table",
    "decoder.onnx": "layers",
    "decoder.cpu.onnx": "fast layers",
    "decoder.cuda.onnx": "fast steps",
    "weights/model.safetensors": "numbers",
    "processor/tokenizer.json": "{}",
    "tokenizer.json": "{}",
}


def example_manifest() -> Manifest:
    """What an export of ``FILES`` hands to the writer; ``files`` is for the writer to fill."""
    image = TensorInfo("image", "uint8", ("height", "width", 3))
    pixels = TensorInfo("pixel_values", "fp32", ("tiles", 3, 56, 56))
    features = TensorInfo("image_features", "fp32", ("visual_tokens", 256))
    ids = TensorInfo("input_ids", "int64", ("batch", "sequence"))
    embeds = TensorInfo("inputs_embeds", "fp32", ("batch", "sequence", 256))
    kept = TensorInfo("kept_length", "int64", ())
    logits = TensorInfo("logits", "fp32", ("batch", 1, 1000))
    past = TensorInfo("past_key_values.7.key", "fp32", ("batch", 2, "capacity", 64))
    return Manifest(
        created="2026-01-31T12:00:00Z",
        tools=tool_versions(),
        source=Source("demo", None, {"model.safetensors": "0" * 64}),
        model=SPEC,
        dtype="fp32",
        pruning=PruningConfig(),
        budget=Budget(keep=40),
        limits=Limits(max_batch=1, max_images=1, max_text=512, max_new_tokens=128),
        opset=23,
        graphs={
            "preprocess": GraphInfo("preprocess.onnx", (image,), (pixels,)),
            "vision_encoder": GraphInfo("vision_encoder.onnx", (pixels,), (features,)),
            "embed_tokens": GraphInfo("embed_tokens.onnx", (ids, features), (embeds,)),
            "decoder": GraphInfo("decoder.onnx", (embeds, kept), (logits,)),
        },
        prompt=PromptInfo(
            "<image>",
            "<s>",
            TemplateInfo(
                False,
                TurnParts("USER: ", "<image>\n", "", " ASSISTANT:"),
                TurnParts("</s>USER: ", "<image>\n", "", " ASSISTANT:"),
            ),
        ),
        generation=GenerationInfo(stop=("###",), left_out=("num_beams",)),
        cpu_decoder=CpuDecoder("decoder.cpu.onnx", (embeds, kept, past), (logits,), ("fused-attention",)),
        cuda_decoder=GraphInfo("decoder.cuda.onnx", (embeds, kept), (logits,)),
    )


def example_engine(version: str) -> EngineInfo:
    """The decoder's, for a TensorRT-RTX of this version."""
    profile = Profile("generation", {"inputs_embeds": ShapeRange((1, 1, 256), (1, 1, 256), (1, 1, 256))})
    return EngineInfo(
        "decoder", "engines/decoder.tensorrt_rtx.engine", "tensorrt_rtx", version, ("12.0",), (profile,)
    )


def write_files(folder: Path) -> None:
    """``FILES`` below ``folder``."""
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def write_bundle(output: Path, *, overwrite: bool = False) -> Bundle:
    """A complete bundle at ``output``."""
    with BundleWriter(output, overwrite) as writer:
        write_files(writer.path)
        return writer.complete(example_manifest())
