"""A plan becomes a bundle: nothing is decided here."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import onnx

from asap_export.bundle import (
    CHAT_TEMPLATE,
    TOKENIZER,
    Bundle,
    BundleWriter,
    GraphInfo,
    Manifest,
    Source,
    tool_versions,
    utc_now,
)
from asap_export.bundle.hashing import sha256_of_each
from asap_export.bundle.manifest import CpuDecoder, GraphName
from asap_export.engine import build_engines, graph_info
from asap_export.exporter.inlined import write_inlined_decoder
from asap_export.exporter.plan import ExportPlan, plan_export
from asap_export.exporter.request import ExportRequest
from asap_export.graph.operators import OPSET_VERSION
from asap_export.graph.preprocess import PREPROCESS
from asap_export.graph.write import CPU_DECODER, CUDA_DECODER, Written, write_graphs
from asap_export.progress import ProgressCallback, no_progress
from asap_export.spec import CpuPass

__all__ = ["Exported", "carry_out", "export"]

_GRAPHS: tuple[GraphName, ...] = ("preprocess", "vision_encoder", "embed_tokens", "decoder")


@dataclass(frozen=True)
class Exported:
    """The finished bundle, the plan that it was made by, how each file of the checkpoint came into it ("linked" or
    "copied"), and what became of its weights."""

    plan: ExportPlan
    bundle: Bundle
    placed: dict[str, str]
    written: Written


def export(request: ExportRequest, progress: ProgressCallback = no_progress) -> Exported:
    """Write a bundle. Raises UserError before the long work wherever the request cannot be met."""
    return carry_out(plan_export(request, progress), progress)


def carry_out(plan: ExportPlan, progress: ProgressCallback = no_progress) -> Exported:
    """Do what a plan says.

    Raises UserError where something changed since it was made, the disk fills up, a weight's values do not fit
    into the dtype, or TensorRT refuses a graph; then nothing is left of the bundle.
    """
    prepared = plan.prepared
    with BundleWriter(plan.output, plan.overwrite) as writer:
        folder = writer.path
        placing = _Placing(writer, _digests(plan, progress))
        for relative, file in plan.files.items():
            placing.put(file, relative)
        (folder / TOKENIZER).write_text(prepared.tokenizer, encoding="utf-8")
        if prepared.chat_template is not None:
            (folder / CHAT_TEMPLATE).write_text(prepared.chat_template, encoding="utf-8")
        onnx.save(prepared.preprocess, folder / f"{PREPROCESS}.onnx")
        written = write_graphs(
            prepared.checkpoint,
            plan.pruning,
            plan.dtype,
            folder,
            partial(placing.put, link=plan.weights.way == "link"),
            progress,
            plan.quantize_as,
            plan.cpu_passes,
        )
        write_inlined_decoder(folder, plan.pruning)
        manifest = _manifest(plan, folder, placing.digests)
        if target := plan.engines:
            engines = build_engines(
                folder,
                manifest,
                target.flavor,
                target.compute_capabilities,
                target.parts,
                progress,
            )
            manifest = replace(manifest, engines=engines)
        return Exported(plan, writer.complete(manifest, progress), placing.placed, written)


@dataclass
class _Placing:
    """Files of the checkpoint on their way into the bundle, each once."""

    writer: BundleWriter
    digests: dict[str, str]  # sha256 by file name
    placed: dict[str, str] = field(default_factory=dict)  # "linked" or "copied", by place in the bundle

    def put(self, source: Path, relative: str, link: bool = False) -> None:
        if relative not in self.placed:
            digest = self.digests.get(source.name)
            self.placed[relative] = self.writer.place_file(source, relative, digest, link)


def _manifest(plan: ExportPlan, folder: Path, digests: dict[str, str]) -> Manifest:
    return Manifest(
        created=utc_now(),
        tools=tool_versions(),
        source=Source(plan.source, plan.revision, digests),
        model=plan.model,
        dtype=plan.dtype,
        quantization=plan.quantize_as.quantization if plan.quantize_as else None,
        pruning=plan.pruning,
        budget=plan.budget,
        limits=plan.limits,
        opset=OPSET_VERSION,
        graphs={name: _graph_info(folder, f"{name}.onnx") for name in _GRAPHS},
        prompt=plan.prompt,
        generation=plan.generation,
        cpu_decoder=_cpu_decoder(folder, plan.cpu_passes),
        cuda_decoder=_graph_info(folder, CUDA_DECODER) if (folder / CUDA_DECODER).exists() else None,
    )


def _digests(plan: ExportPlan, progress: ProgressCallback) -> dict[str, str]:
    """sha256 of every file that the bundle is made from, by name."""
    shards = {place.file for place in plan.prepared.checkpoint.tensors.values()}
    files = [*plan.files.values(), *sorted(shards)]
    return sha256_of_each({file.name: file for file in files}, "Hash checkpoint", progress)


def _cpu_decoder(folder: Path, passes: tuple[CpuPass, ...]) -> CpuDecoder | None:
    if not passes:
        return None
    info = _graph_info(folder, CPU_DECODER)
    return CpuDecoder(info.file, info.inputs, info.outputs, passes)


def _graph_info(folder: Path, file: str) -> GraphInfo:
    return graph_info(onnx.load(folder / file, load_external_data=False), file)
