"""ONNX graphs to serialized engines: one for each graph, or several for the decoder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import onnx

from asap_export.bundle import EngineInfo, EnginePart, Manifest, Profile
from asap_export.bundle.manifest import EngineGraph, Flavor
from asap_export.engine.attention import decomposed_attention, spell_out_attention
from asap_export.engine.child import build_in_child
from asap_export.engine.compile import Job
from asap_export.engine.parts import DecoderPart
from asap_export.engine.profiles import graph_profiles
from asap_export.engine.split import split_decoder
from asap_export.engine.tensors import graph_info
from asap_export.progress import Progress, ProgressCallback, no_progress

__all__ = ["build_engine", "build_engines"]


def build_engines(
    folder: Path,
    manifest: Manifest,
    flavor: Flavor,
    capabilities: Sequence[str],
    parts: Sequence[DecoderPart],
    progress: ProgressCallback = no_progress,
) -> tuple[EngineInfo, ...]:
    """Build ``engines/<graph>.<flavor>.engine`` in ``folder`` for every graph of ``manifest``
    but ``preprocess``, which runs on the host.

    ``folder`` holds the graphs; ``capabilities`` come from ``target_capabilities``, ``parts`` of the decoder from
    ``decoder_parts``. Raises UserError where TensorRT refuses or crashes or an engine cannot be written,
    KeyboardInterrupt where the user interrupts; no part of an engine stays.
    """
    built = []
    for name in get_args(EngineGraph):
        whole = onnx.load(folder / manifest.graphs[name].file, load_external_data=False)
        for title, model, part in _titled(name, whole, manifest, parts):
            graph = graph_info(model, manifest.graphs[name].file)
            profiles = graph_profiles(
                graph,
                manifest.model,
                manifest.pruning,
                manifest.budget,
                manifest.limits,
                quantized=manifest.quantization is not None,
            )
            job = (folder, name, model, profiles, flavor, capabilities)
            built.append(build_engine(*job, title=title, part=part, progress=progress))
    return tuple(built)


def _titled(
    name: EngineGraph, whole: onnx.ModelProto, manifest: Manifest, parts: Sequence[DecoderPart]
) -> Iterator[tuple[str, onnx.ModelProto, EnginePart | None]]:
    if name != "decoder" or len(parts) == 1:
        yield name, whole, None
        return
    models = split_decoder(whole, [part.first for part in parts])
    for number, (part, model) in enumerate(zip(parts, models, strict=True)):
        graph = graph_info(model, manifest.graphs[name].file)
        layers = (part.first, part.last)
        yield part.title, model, EnginePart(number, len(parts), layers, graph.inputs, graph.outputs)


def build_engine(
    folder: Path,
    name: EngineGraph,
    model: onnx.ModelProto,
    profiles: Sequence[Profile],
    flavor: Flavor,
    capabilities: Sequence[str],
    title: str | None = None,
    part: EnginePart | None = None,
    progress: ProgressCallback = no_progress,
) -> EngineInfo:
    """Build the engine of one graph or of a part of it, with all ``profiles`` over one copy of the weights.

    ``model`` is loaded without external data, which is found from ``folder``; ``title`` names the file, as the
    graph does without.
    """
    title = title or name
    file = f"engines/{title}.{flavor}.engine"
    stage = f"Build {Path(file).name}"
    progress(Progress(stage, 0.0, "parse"))
    decomposed = decomposed_attention(model)
    with _parsable(folder / f".{title}.onnx", model) as path:
        job = Job(str(path), str(folder / file), flavor, tuple(capabilities), tuple(profiles))
        version = build_in_child(job, file, stage, progress)
    progress(Progress(stage, 1.0))
    return EngineInfo(name, file, flavor, version, job.capabilities, job.profiles, decomposed, part)


@contextmanager
def _parsable(path: Path, model: onnx.ModelProto) -> Iterator[Path]:
    """``model`` as a file that TensorRT takes, for as long as it is read; weights are found beside it."""
    try:
        onnx.save(spell_out_attention(model) or model, path)
        yield path
    finally:
        path.unlink(missing_ok=True)
