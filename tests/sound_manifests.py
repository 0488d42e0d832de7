"""Manifests that both runtimes take."""

from dataclasses import replace

import bundle_cases

from asap_export.bundle import EngineInfo, EnginePart, FileInfo, Manifest, Profile, ShapeRange, TensorInfo
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.spec import Quantization


def sound() -> dict[str, Manifest]:
    """One of each form; "engines" has a value in every field."""
    manifest = replace(bundle_cases.example_manifest(), files={"decoder.onnx": FileInfo("0" * 64, 6)})
    spec = replace(manifest.model, grid_pinpoints=(), class_token=True, bos_token_id=None, pad_token_id=0)
    dense = replace(
        manifest,
        cpu_decoder=None,
        cuda_decoder=None,
        model=spec,
        pruning=PruningConfig("none"),
        budget=Budget(ratio=1.0),
        dtype="bf16",
    )
    shapes = {"inputs_embeds": ShapeRange((1, 1, 256), (1, 600, 256), (2, 2000, 256))}
    profile = Profile("prefill", shapes, {"kept_length": ShapeRange((1,), (100,), (2000,))})
    hidden = TensorInfo("hidden_states", "fp32", ("batch", "sequence", 256))
    graph = manifest.graphs["decoder"]
    parts = [
        EnginePart(number, 2, (4 * number, 4 * number + 3), (*graph.inputs, hidden), (hidden, *graph.outputs))
        for number in range(2)
    ]
    engines = [
        EngineInfo(
            "decoder",
            f"engines/{part.number}.engine",
            "tensorrt_rtx",
            "1.7",
            ("12.0",),
            (profile,),
            ("a",),
            part,
        )
        for part in parts
    ]
    whole = EngineInfo("vision_encoder", "engines/v.engine", "tensorrt", "10.14", ("current",), (profile,))
    average = Budget(layer_average=64.5)
    built = replace(
        manifest,
        source=replace(manifest.source, revision="0123abc"),
        engines=(*engines, whole),
        quantization=Quantization(),
        budget=average,
    )
    untold = replace(manifest, prompt=replace(manifest.prompt, bos_token=None, template=None))
    int8 = replace(manifest, quantization=Quantization(8, None))
    return {"example": manifest, "dense": dense, "int8": int8, "engines": built, "no template": untold}
