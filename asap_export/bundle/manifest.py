"""What manifest.json says, typed; read it with ``Manifest.parse``, write it with ``Manifest.text``."""

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from asap_export.bundle.records import from_json, to_json
from asap_export.errors import UserError
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.spec import CpuPass, ModelSpec, Quantization

__all__ = [
    "SCHEMA_VERSION",
    "CpuDecoder",
    "Dtype",
    "EngineGraph",
    "EngineInfo",
    "EnginePart",
    "FileInfo",
    "Flavour",
    "GraphInfo",
    "GraphName",
    "Limits",
    "Manifest",
    "Profile",
    "PromptInfo",
    "ShapeRange",
    "Source",
    "TemplateInfo",
    "TensorDtype",
    "TensorInfo",
    "TurnParts",
    "manifest_schema",
    "tool_versions",
]

SCHEMA_VERSION = 4

Dtype = Literal["fp32", "fp16", "bf16"]
TensorDtype = Literal["fp32", "fp16", "bf16", "int64", "int32", "bool", "uint8"]
GraphName = Literal["preprocess", "vision_encoder", "embed_tokens", "decoder"]
EngineGraph = Literal["vision_encoder", "embed_tokens", "decoder"]  # preprocess runs on the host
Flavour = Literal["tensorrt", "tensorrt_rtx"]

_TOOLS = (
    "asap-export", "torch", "transformers", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "onnxruntime-gpu",
    "polygraphy", "tensorrt", "tensorrt-rtx", "numpy", "pillow", "safetensors", "tokenizers",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """The checkpoint a bundle was made from; ``files`` maps its file names to their sha256."""

    id: str  # a hub id, or the name of a local folder
    revision: str | None  # commit of the hub repository
    files: dict[str, str]


@dataclass(frozen=True)
class Limits:
    """The largest request that engines are built for."""

    max_batch: int
    max_images: int  # of one prompt
    max_text: int  # tokens of one prompt that are not visual
    max_new_tokens: int


@dataclass(frozen=True)
class TensorInfo:
    """A graph's input or output; a dimension is a number or a name, ``()`` is a scalar."""

    name: str
    dtype: TensorDtype
    dims: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphInfo:
    """One ONNX file, relative to the bundle."""

    file: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class CpuDecoder(GraphInfo):
    """``decoder.onnx`` once more, as ONNX Runtime's CPU provider is fast with it: what the passes made of it.

    Caches with a dimension ``capacity`` may be longer than what they hold, and then are written to in place. Those
    that leave it with a dimension ``untrimmed`` still hold the new tokens that were cut.
    """

    passes: tuple[CpuPass, ...]


@dataclass(frozen=True)
class ShapeRange:
    """Smallest, expected and largest shape of an input (or values of a shape tensor)."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """One optimization profile: ``shapes`` per input, ``values`` per shape-tensor input (``kept_length``)."""

    name: str
    shapes: dict[str, ShapeRange]
    values: dict[str, ShapeRange] = field(default_factory=dict)


@dataclass(frozen=True)
class EnginePart:
    """Which part of its graph an engine holds; parts run in order, each fed by the earlier ones by name."""

    number: int  # from 0
    of: int
    layers: tuple[int, int]  # the first and the last, from 0
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class EngineInfo:
    """One serialized TensorRT engine and the machines it is for; a whole graph's unless it is a ``part``."""

    graph: EngineGraph
    file: str
    flavour: Flavour
    tensorrt_version: str
    compute_capabilities: tuple[str, ...]  # "8.6", "12.0", or "current"
    profiles: tuple[Profile, ...]
    decomposed_attention: tuple[str, ...] = ()  # attention layers without a dedicated kernel
    part: EnginePart | None = None


@dataclass(frozen=True)
class TurnParts:
    """A turn of a conversation: ``start``, ``image`` for each image, ``after_images`` where there are any, the
    user's text, ``end``. Without ``image`` and ``after_images`` where the text itself holds image marks."""

    start: str
    image: str
    after_images: str
    end: str


@dataclass(frozen=True)
class TemplateInfo:
    """What the checkpoint's chat template writes, to the letter. ``later`` begins right behind the last answer;
    ``trims``: white space is taken off either end of the user's text."""

    trims: bool
    first: TurnParts
    later: TurnParts


@dataclass(frozen=True)
class PromptInfo:
    """How a prompt is made without Python; token ids come from ``tokenizer.json``.

    ``image_token`` is the mark of an image. A text that begins with ``bos_token`` is given no special tokens.
    ``template`` is None where the checkpoint has no chat template, or one that these parts cannot express.
    """

    image_token: str
    bos_token: str | None
    template: TemplateInfo | None


@dataclass(frozen=True)
class FileInfo:
    sha256: str  # hexadecimal, lower case
    size: int  # bytes


@dataclass(frozen=True)
class Manifest:
    """Everything a runtime needs to know of a bundle before it opens a graph.

    ``budget`` is the default of a request; a dense bundle (method ``none``) carries a ratio of 1.
    ``files`` names every file of the bundle but the manifest and ``parity.json``.
    """

    created: str  # UTC, "2026-01-31T12:00:00Z"
    tools: dict[str, str]  # package name: version
    source: Source
    model: ModelSpec
    dtype: Dtype  # of activations and of the weights that are not quantized
    pruning: PruningConfig
    budget: Budget
    limits: Limits
    opset: int
    graphs: dict[GraphName, GraphInfo]
    prompt: PromptInfo
    cpu_decoder: CpuDecoder | None = None
    quantization: Quantization | None = None  # of the decoder's linear layers
    engines: tuple[EngineInfo, ...] = ()
    files: dict[str, FileInfo] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def text(self) -> str:
        """The file's content: JSON, indented, ending in a newline."""
        return json.dumps(to_json(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, text: str | bytes) -> "Manifest":
        """The manifest in ``text``. Raises UserError where it is no JSON, too new, or against the schema."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"expected JSON in manifest.json, found {error}; export the bundle again"
            ) from error
        found = document.get("schema_version") if isinstance(document, dict) else None
        if isinstance(found, int) and found != SCHEMA_VERSION:
            raise UserError(
                f"expected schema version {SCHEMA_VERSION} in manifest.json, found {found}; "
                "use the asap-export release that wrote this bundle, or export it again"
            )
        breach = best_match(_validator().iter_errors(document))
        if breach is not None:
            reason = " ".join(breach.message.split())
            reason = reason if len(reason) <= 200 else f"{reason[:120]} ... {reason[-75:]}"
            raise UserError(
                f"manifest.json breaks its schema at {breach.json_path}: {reason}; export the bundle again"
            )
        manifest = from_json(cls, document)
        assert isinstance(manifest, cls)
        return manifest


@cache
def manifest_schema() -> dict[str, Any]:
    """The JSON Schema (Draft 2020-12) that every manifest satisfies."""
    text = Path(__file__).with_name("manifest.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(manifest_schema())


def tool_versions() -> dict[str, str]:
    """Installed versions of the packages that shape a bundle; those not installed are left out."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and not for reading one

    found = {}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
