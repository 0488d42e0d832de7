"""A request becomes a plan: all that an export decides, and every check that can fail before the long work."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import onnx

from asap_export.bundle import GenerationInfo, Limits, PromptInfo
from asap_export.bundle.refusals import check_output, require_space
from asap_export.checkpoint.checkpoint import Checkpoint, Outline, open_outlined, outline_checkpoint
from asap_export.checkpoint.loading import check_processor, unsaid_settings
from asap_export.checkpoint.naming import listed
from asap_export.checkpoint.tokenizer import chat_template, tokenizer_json
from asap_export.checkpoint.tokenizer_parts import refused_by_cpp
from asap_export.engine import check_limits
from asap_export.errors import UserError
from asap_export.exporter.budget import budget_of, limits_of
from asap_export.exporter.engines import EnginePlan, engine_target, plan_engines
from asap_export.exporter.generation import generation_info
from asap_export.exporter.request import ExportRequest
from asap_export.exporter.weights import WeightPlan, plan_weights
from asap_export.graph.cpu import passes_for
from asap_export.graph.preprocess import preprocess_graph
from asap_export.graph.write import QuantizeAs
from asap_export.model.anyres import TileGeometry
from asap_export.progress import ProgressCallback, no_progress
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.runtime.jinja import jinja_renderer
from asap_export.runtime.template import WholeTemplate
from asap_export.runtime.template_parts import prompt_info, self_contained
from asap_export.spec import CpuPass, Dtype, ModelSpec, default_cpu_passes

__all__ = ["ExportPlan", "plan_export"]

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


@dataclass(frozen=True)
class Prepared:
    """What planning has opened and made on the way, so that the doing need not do it again."""

    checkpoint: Checkpoint
    preprocess: onnx.ModelProto
    tokenizer: str  # the content of tokenizer.json
    chat_template: str | None  # the content of chat_template.jinja


@dataclass(frozen=True)
class ExportPlan:
    """What an export will do, checked. All but ``prepared`` is plain data, which ``facts`` gives as JSON values.

    ``files``: the checkpoint's small files by their place in the bundle. ``disk``: bytes that the bundle takes at
    least. ``missing``: what the bundle goes without for this checkpoint, and why.
    """

    source: str  # what the checkpoint was called: "demo", a folder or a hub id
    revision: str | None  # the commit of a hub id
    output: Path
    overwrite: bool
    model: ModelSpec
    dtype: Dtype
    quantize_as: QuantizeAs | None
    weights: WeightPlan
    pruning: PruningConfig
    budget: Budget
    limits: Limits
    cpu_passes: tuple[CpuPass, ...]  # none: no decoder for CPUs
    engines: EnginePlan | None
    prompt: PromptInfo
    generation: GenerationInfo
    files: dict[str, Path]
    disk: int
    missing: dict[str, str]
    prepared: Prepared = field(repr=False, compare=False)

    def facts(self) -> dict[str, Any]:
        """The plan as JSON values."""
        plain = {name: value for name, value in vars(self).items() if name not in ("prepared", "files")}
        facts: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(plain, enc_hook=str))  # paths as text
        return facts | {"files": sorted(self.files)}


def plan_export(request: ExportRequest, progress: ProgressCallback = no_progress) -> ExportPlan:
    """Decide and check everything; nothing is written but a hub checkpoint into the hub's own cache.

    Raises UserError wherever the request cannot be met, as far as that shows before weights are read.
    """
    output = _output(request)  # what needs no weights comes first: they may have to be downloaded
    check_output(output, request.overwrite)
    target = engine_target(request)
    outline = outline_checkpoint(request.model, request.revision)
    limits = limits_of(request, outline)
    budget = budget_of(request, outline.spec, limits)
    check_limits(limits, outline.spec, request.pruning, budget, with_engines=target is not None)
    processed = _processor(outline)

    checkpoint = open_outlined(outline, progress)
    spec = checkpoint.spec
    dtype = request.dtype or spec.dtype
    weights = plan_weights(request, checkpoint, dtype, output)
    engines = plan_engines(request, target, spec, limits, weights)
    files = {_place(file): file for file in _small_files(checkpoint.folder)}
    disk = weights.disk + sum(file.stat().st_size for file in files.values())
    disk += weights.total if engines else 0  # engines hold every weight once more
    require_space(disk, output)
    missing = dict(processed.missing)
    if checkpoint.ignored:
        missing["ignored"] = f"stored tensors that the model has not: {listed(checkpoint.ignored)}"
    if checkpoint.absent:
        missing["absent"] = (
            f"weights that nothing reads and the checkpoint has not: {listed(checkpoint.absent)}"
        )
    generation = generation_info(outline.generation, spec.max_position_embeddings)
    if generation.left_out:
        missing["answers"] = (
            f"nothing honours these of generation_config.json: {', '.join(generation.left_out)}"
        )
    wanted = default_cpu_passes(request.quantization) if request.cpu_passes is None else request.cpu_passes
    cpu_passes, refused = passes_for(spec.head_dim, () if dtype == "bf16" else wanted)
    if refused is not None:
        missing["CPU"] = f"the decoder goes {refused}"
    return ExportPlan(
        source=checkpoint.source,
        revision=checkpoint.revision,
        output=output,
        overwrite=request.overwrite,
        model=spec,
        dtype=dtype,
        quantize_as=_quantize_as(request),
        weights=weights,
        pruning=request.pruning,
        budget=budget,
        limits=limits,
        cpu_passes=cpu_passes,
        engines=engines,
        prompt=processed.prompt,
        generation=generation,
        files=files,
        disk=disk,
        missing=missing,
        prepared=Prepared(checkpoint, processed.preprocess, processed.tokenizer, processed.chat_template),
    )


class _Processed(NamedTuple):
    """What comes of a checkpoint's processor, and what of it other programs lack and why."""

    preprocess: onnx.ModelProto
    tokenizer: str
    chat_template: str | None
    prompt: PromptInfo
    missing: dict[str, str]


def _processor(outline: Outline) -> _Processed:
    folder, spec = outline.place.folder, outline.spec
    processor = check_processor(folder, spec)
    preprocess = preprocess_graph(processor, TileGeometry.of(spec), str(folder))
    tokenizer = tokenizer_json(processor, str(folder))
    template = chat_template(processor)
    jinja = self_contained(template, processor.tokenizer.special_tokens_map) if template else None
    whole = WholeTemplate(jinja_renderer(jinja) if jinja else None, processor.image_token)
    prompt, template_refused = prompt_info(whole, template, processor.tokenizer.bos_token)
    missing = {}
    if unsaid := unsaid_settings(folder):
        missing["processor"] = f"its files do not say {' and '.join(unsaid)}; taken from config.json"
    if template_refused is not None:
        missing["prompts"] = f"programs without Python write them whole: the chat template {template_refused}"
    if template and (marks := _marks_for_an_image(whole)) != 1:
        missing["images"] = (
            f"the chat template writes {marks} marks for an image; questions have to bring {processor.image_token}"
        )
    if (tokenizer_refused := refused_by_cpp(tokenizer)) is not None:
        missing["tokenizer"] = f"the C++ runtime takes token ids only: {tokenizer_refused}"
    vocabulary = processor.tokenizer.get_vocab()
    beyond = [word for word, token in vocabulary.items() if spec.vocab_size <= token != spec.image_token_id]
    if beyond:
        missing["tokens"] = f"questions with these are refused, which have no embedding: {listed(beyond)}"
    return _Processed(preprocess, tokenizer, jinja, prompt, missing)


def _output(request: ExportRequest) -> Path:
    """By default a folder named after the model; the ending keeps it apart from the checkpoint's own."""
    named_after = Path(request.model or "demo").resolve().name
    return (request.output or Path(f"{named_after}.bundle")).expanduser().resolve()


def _marks_for_an_image(template: WholeTemplate) -> int:
    try:
        return template.first("", 1).count(template.mark)
    except UserError:  # it refuses other things, too
        return 0


def _quantize_as(request: ExportRequest) -> QuantizeAs | None:
    """ONNX Runtime has an operator of its own for 4-bit weights; TensorRT reads ONNX's."""
    if (wanted := request.quantization) is None:
        return None
    own = wanted.bits == 4 and request.engine == "ort"
    return QuantizeAs(wanted, "MatMulNBits" if own else "DequantizeLinear")


def _small_files(folder: Path) -> list[Path]:
    patterns = ("config.json", *_PROCESSOR_FILES)
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _place(file: Path) -> str:
    return file.name if file.name == "config.json" else f"processor/{file.name}"
