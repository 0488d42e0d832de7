"""The pipeline: a checkpoint becomes a bundle of graphs and, where asked for, engines."""

import math
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import onnx

from asap_export.bundle import (
    TOKENIZER,
    Bundle,
    BundleWriter,
    GraphInfo,
    Limits,
    Manifest,
    Source,
    tool_versions,
    utc_now,
)
from asap_export.bundle.hashing import sha256_of_each
from asap_export.bundle.manifest import CpuDecoder
from asap_export.bundle.presets import find_preset
from asap_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from asap_export.checkpoint.loading import TORCH_DTYPES, check_processor
from asap_export.checkpoint.shards import TensorPlace
from asap_export.checkpoint.tokenizer import tokenizer_json
from asap_export.checkpoint.tokenizer_parts import refused_by_cpp
from asap_export.engine import (
    USUAL,
    WeightSizes,
    build_engines,
    check_limits,
    check_memory,
    default_limits,
    find_flavor,
    graph_info,
    target_capabilities,
)
from asap_export.errors import UserError
from asap_export.graph.cpu import passes_for
from asap_export.graph.operators import OPSET_VERSION
from asap_export.graph.preprocess import PREPROCESS, preprocess_graph
from asap_export.graph.trace import GRAPHS
from asap_export.graph.write import CPU_DECODER, QuantizeAs, Written, write_graphs
from asap_export.memory import available_memory
from asap_export.model.anyres import TileGeometry
from asap_export.progress import ProgressCallback, no_progress
from asap_export.pruning.config import DEFAULT_KEEP_RATIO, Budget, PruningConfig
from asap_export.runtime.prompt import PromptReader
from asap_export.runtime.template import prompt_info
from asap_export.spec import DEFAULT_CPU_PASSES, CpuPass, Quantization

__all__ = ["ExportRequest", "Exported", "export"]

# What a processor may be made of; transformers has spread it over these files in the course of time.
_PROCESSOR_FILES = (
    "added_tokens.json",
    "chat_template.*",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer*",
    "vocab.*",
)


# onnx's checker refuses external data with several hard links, so small checkpoints are copied, and links are
# for those whose second copy would hurt.
_LARGE_WEIGHTS = 2_000_000_000  # bytes


@dataclass(frozen=True)
class ExportRequest:
    """What to export; None stands for the checkpoint's own value or the default.

    ``weights``: whether weights that keep their dtype are hard-linked into the bundle or copied; "auto" links
    where they are larger than 2 GB.
    """

    model: str | None = None  # a folder or a hub id; None is the built-in demo
    revision: str | None = None  # of a hub id: a branch, a tag or a commit
    output: Path | None = None
    engine: Literal["ort", "trt"] = "ort"
    dtype: str | None = None
    weights: Literal["auto", "link", "copy"] = "auto"
    quantization: Quantization | None = None
    pruning: PruningConfig = field(default_factory=PruningConfig)
    cpu_passes: tuple[CpuPass, ...] = DEFAULT_CPU_PASSES  # none: no decoder for the CPU beside decoder.onnx
    budget: Budget | None = None
    max_batch: int | None = None
    max_images: int | None = None
    max_text: int | None = None
    max_new_tokens: int | None = None
    flavor: str = "auto"
    compute_capabilities: tuple[str, ...] = ()
    layers_per_engine: int | None = None  # None: one engine for the whole decoder
    check_memory: bool = True  # refuse builds that need more memory than there is
    overwrite: bool = False


@dataclass(frozen=True)
class Exported:
    """The finished bundle, how each file of the checkpoint came into it ("linked" or "copied"), what became of its
    weights, why its chat template is not in the manifest, where it is not, what the C++ runtime refuses its
    tokenizer with, where it does, and which passes its decoder for the CPU goes without and why, where it does."""

    bundle: Bundle
    placed: dict[str, str]
    written: Written
    template_refused: str | None
    tokenizer_refused: str | None
    passes_refused: str | None


def export(request: ExportRequest, progress: ProgressCallback = no_progress) -> Exported:
    """Write a bundle. Raises UserError before the long work wherever the request cannot be met."""
    checkpoint = open_checkpoint(request.model, request.revision, progress)
    processor = check_processor(checkpoint.folder, checkpoint.spec)
    dtype = request.dtype or checkpoint.spec.dtype
    limits = _limits(request, checkpoint)
    budget = _budget(request, checkpoint, limits)
    check_limits(limits, checkpoint.spec, request.pruning, budget, with_engines=request.engine == "trt")
    flavor = find_flavor(request.flavor) if request.engine == "trt" else None
    capabilities = target_capabilities(flavor, request.compute_capabilities) if flavor else ()
    if flavor:
        _check_engine_sizes(request, checkpoint, dtype, limits)
    place = str(checkpoint.folder)
    preprocess = preprocess_graph(processor, TileGeometry.of(checkpoint.spec), place)
    tokenizer = tokenizer_json(processor, place)
    prompt, template_refused = prompt_info(PromptReader(checkpoint.folder, checkpoint.spec))
    cpu_passes, passes_refused = passes_for(checkpoint.spec.head_dim, request.cpu_passes)

    with BundleWriter(_output(request, checkpoint), request.overwrite) as writer:
        digests = _digests(checkpoint, progress)
        placed: dict[str, str] = {}

        def put(source: Path, relative: str, link: bool = False) -> None:
            if relative not in placed:
                placed[relative] = writer.place_file(source, relative, digests.get(source.name), link)

        for file in _small_files(checkpoint.folder):
            put(file, "config.json" if file.name == "config.json" else f"processor/{file.name}")
        (writer.path / TOKENIZER).write_text(tokenizer, encoding="utf-8")
        onnx.save(preprocess, writer.path / f"{PREPROCESS}.onnx")
        written = write_graphs(
            checkpoint,
            request.pruning,
            dtype,
            writer.path,
            partial(put, link=_links_weights(request, checkpoint)),
            progress,
            _quantize_as(request),
            cpu_passes,
        )
        manifest = Manifest(
            created=utc_now(),
            tools=tool_versions(),
            source=Source(checkpoint.source, checkpoint.revision, digests),
            model=checkpoint.spec,
            dtype=dtype,  # type: ignore[arg-type]  # checked by the graph writer's table
            quantization=request.quantization,
            pruning=request.pruning,
            budget=budget,
            limits=limits,
            opset=OPSET_VERSION,
            graphs={name: _graph_info(writer.path, f"{name}.onnx") for name in (PREPROCESS, *GRAPHS)},  # type: ignore[misc]
            prompt=prompt,
            cpu_decoder=_cpu_decoder(writer.path, cpu_passes),
        )
        if flavor:
            engines = build_engines(
                writer.path, manifest, flavor, capabilities, request.layers_per_engine, progress
            )
            manifest = replace(manifest, engines=engines)
        bundle = writer.complete(manifest, progress)
        passes_refused = (
            None if dtype == "bf16" else passes_refused
        )  # which has no decoder for the CPU at all
        return Exported(bundle, placed, written, template_refused, refused_by_cpp(tokenizer), passes_refused)


def _output(request: ExportRequest, checkpoint: Checkpoint) -> Path:
    """By default a folder named after the model; the ending keeps it apart from the checkpoint's own."""
    return request.output or Path(f"{Path(checkpoint.source).resolve().name}.bundle")


def _limits(request: ExportRequest, checkpoint: Checkpoint) -> Limits:
    """What is asked for; the rest comes from the preset where the checkpoint is that one from the hub."""
    names = ("max_batch", "max_images", "max_text", "max_new_tokens")
    given = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    preset = find_preset(checkpoint.source) if checkpoint.revision is not None else None
    usual = preset.limits if preset and preset.model == checkpoint.source else USUAL
    return default_limits(checkpoint.spec, usual, **given)


def _budget(request: ExportRequest, checkpoint: Checkpoint, limits: Limits) -> Budget:
    """The bundle's default budget, checked against the largest prompt that the limits allow."""
    spec, pruning = checkpoint.spec, request.pruning
    if not pruning.prunes:
        if request.budget is not None:
            raise UserError(
                "expected no budget with --dense, which keeps every visual token; give only one of them"
            )
        return Budget(ratio=1.0)
    if pruning.method == "random":
        raise UserError("expected a method that a graph can hold (asap, fastv or none), found random")
    if pruning.prune_after >= spec.layers:
        raise UserError(
            f"expected --prune-after below the model's {spec.layers} layers, found {pruning.prune_after}"
        )
    budget = request.budget or Budget(ratio=DEFAULT_KEEP_RATIO)
    largest = limits.max_images * spec.max_visual_tokens
    wanted = budget.keep or budget.layer_average or 0
    if wanted > largest:
        flag = "--keep" if budget.keep else "--budget"
        images = "an image" if limits.max_images == 1 else f"{limits.max_images} images"
        raise UserError(
            f"expected {flag} of at most {largest}, the most visual tokens that {images} of this checkpoint can "
            f"carry, found {wanted:g}; lower it, or use --dense to keep all"
        )
    budget.keep_for(largest, spec.layers, pruning.prune_after)
    return budget


def _check_engine_sizes(request: ExportRequest, checkpoint: Checkpoint, dtype: str, limits: Limits) -> None:
    """The decoder can be split as asked for, and every engine built in the memory there is."""
    layers, wanted = checkpoint.spec.layers, request.layers_per_engine
    if wanted is not None and not 1 <= wanted < layers:
        raise UserError(
            f"expected --layers-per-engine of 1 to {layers - 1} for {layers} layers, found {wanted}; "
            "leave it out for one engine"
        )
    if request.check_memory:
        sizes = _bundled_sizes(checkpoint, dtype, request.quantization)
        quantized = request.quantization is not None
        check_memory(WeightSizes(sizes, layers, quantized, limits.max_batch), wanted, available_memory())


def _bundled_sizes(checkpoint: Checkpoint, dtype: str, quantization: Quantization | None) -> dict[str, int]:
    """Bytes of every parameter in the bundle's form."""
    itemsize = TORCH_DTYPES[dtype].itemsize
    embedding = checkpoint.tensors["model.language_model.embed_tokens.weight"]

    def bytes_each(name: str, place: TensorPlace) -> float:
        decoder = name.startswith(("model.language_model.", "lm_head.")) and place != embedding
        if quantization is None or not decoder or len(place.shape) < 2:
            return itemsize
        return quantization.bits / 8 + itemsize / quantization.block_size

    return {
        name: int(math.prod(place.shape) * bytes_each(name, place))
        for name, place in checkpoint.tensors.items()
    }


def _links_weights(request: ExportRequest, checkpoint: Checkpoint) -> bool:
    size = sum(file.stat().st_size for file in {place.file for place in checkpoint.tensors.values()})
    return request.weights == "link" or (request.weights == "auto" and size > _LARGE_WEIGHTS)


def _quantize_as(request: ExportRequest) -> QuantizeAs | None:
    """ONNX Runtime has an operator of its own for 4-bit weights; TensorRT reads ONNX's."""
    if request.quantization is None:
        return None
    return QuantizeAs(request.quantization, "MatMulNBits" if request.engine == "ort" else "DequantizeLinear")


def _digests(checkpoint: Checkpoint, progress: ProgressCallback) -> dict[str, str]:
    """sha256 of every file that the bundle is made from, by name."""
    files = [*_small_files(checkpoint.folder), *sorted({place.file for place in checkpoint.tensors.values()})]
    return sha256_of_each({file.name: file for file in files}, "Hash checkpoint", progress)


def _small_files(folder: Path) -> list[Path]:
    patterns = ("config.json", *_PROCESSOR_FILES)
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _cpu_decoder(folder: Path, passes: tuple[CpuPass, ...]) -> CpuDecoder | None:
    if not (folder / CPU_DECODER).exists():
        return None
    info = _graph_info(folder, CPU_DECODER)
    return CpuDecoder(info.file, info.inputs, info.outputs, passes)


def _graph_info(folder: Path, file: str) -> GraphInfo:
    return graph_info(onnx.load(folder / file, load_external_data=False), file)
