"""What manifest.json says: the one definition of it, of which checks and the published schema are made.

Read it with ``Manifest.parse``, write it with ``Manifest.text``. ``tools/manifest_schema.py`` writes the schema
that is published as ``manifest.schema.json`` beside this file; tests hold file and C++ runtime to the definition.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from asap_export.bundle.checking import check
from asap_export.bundle.document import read_document
from asap_export.bundle.errors import BundleError, json_type, shown
from asap_export.bundle.rules import check_budget, check_rules
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.spec import LARGEST, Count, CpuPass, Dtype, ModelSpec, Name, Number, Quantization

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
    "schema_text",
    "tool_versions",
]

SCHEMA_VERSION: Literal[4] = 4

TensorDtype = Literal["fp32", "fp16", "bf16", "int64", "int32", "bool", "uint8"]
GraphName = Literal["preprocess", "vision_encoder", "embed_tokens", "decoder"]
EngineGraph = Literal["vision_encoder", "embed_tokens", "decoder"]  # preprocess runs on the host
Flavour = Literal["tensorrt", "tensorrt_rtx"]

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", min_length=64, max_length=64)]
# Relative to the bundle, with forward slashes; that it stays inside is for Bundle.open to see.
FilePath = Annotated[str, Meta(pattern="^(?![\\s\\S]*[\\x00-\\x1f])", min_length=1, max_length=1024)]
Text = Annotated[str, Meta(max_length=2**16)]
Time = Annotated[
    str,
    Meta(
        pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
        min_length=20,
        max_length=20,
        description="UTC",
    ),
]

_TOOLS = (
    "asap-export", "torch", "transformers", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "onnxruntime-gpu",
    "polygraphy", "tensorrt", "tensorrt-rtx", "numpy", "pillow", "safetensors", "tokenizers",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """The checkpoint a bundle was made from; ``files`` maps its file names to their sha256."""

    id: Name  # a hub id, or the name of a local folder
    revision: Text | None  # commit of the hub repository
    files: dict[Name, Sha256]


@dataclass(frozen=True)
class Limits:
    """The largest request that engines are built for."""

    max_batch: Count
    max_images: Number  # of one prompt
    max_text: Count  # tokens of one prompt that are not visual
    max_new_tokens: Count


@dataclass(frozen=True)
class TensorInfo:
    """A graph's input or output; a dimension is a number or a name, ``()`` is a scalar."""

    name: Name
    dtype: TensorDtype
    dims: tuple[Number | Name, ...]


Tensors = Annotated[tuple[TensorInfo, ...], Meta(min_length=1)]


@dataclass(frozen=True)
class GraphInfo:
    """One ONNX file, relative to the bundle."""

    file: FilePath
    inputs: Tensors
    outputs: Tensors


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

    min: tuple[Number, ...]
    opt: tuple[Number, ...]
    max: tuple[Number, ...]


@dataclass(frozen=True)
class Profile:
    """One optimization profile: ``shapes`` per input, ``values`` per shape-tensor input (``kept_length``)."""

    name: Name
    shapes: dict[Name, ShapeRange]
    values: dict[Name, ShapeRange] = field(default_factory=dict)


@dataclass(frozen=True)
class EnginePart:
    """Which part of its graph an engine holds; parts run in order, each fed by the earlier ones by name."""

    number: Annotated[Number, Meta(description="from 0, in the order in which parts run")]
    of: Count
    layers: Annotated[tuple[Number, Number], Meta(description="the first and the last, from 0")]
    inputs: Tensors
    outputs: Tensors


@dataclass(frozen=True)
class EngineInfo:
    """One serialized TensorRT engine and the machines it is for; a whole graph's unless it is a ``part``."""

    graph: EngineGraph
    file: FilePath
    flavour: Flavour
    tensorrt_version: Name
    compute_capabilities: tuple[Name, ...]  # "8.6", "12.0", or "current"
    profiles: Annotated[tuple[Profile, ...], Meta(min_length=1)]
    decomposed_attention: tuple[Name, ...] = ()  # attention layers without a dedicated kernel
    part: EnginePart | None = None


@dataclass(frozen=True)
class TurnParts:
    """A turn of a conversation: ``start``, ``image`` for each image, ``after_images`` where there are any, the
    user's text, ``end``. Without ``image`` and ``after_images`` where the text itself holds image marks."""

    start: Text
    image: Text
    after_images: Text
    end: Text


@dataclass(frozen=True)
class TemplateInfo:
    """What the checkpoint's chat template writes, to the letter. ``later`` begins right behind the last answer,
    and no special tokens are added to it."""

    trims: Annotated[
        bool,
        Meta(description="white space, U+001C to U+001F too, is taken off either end of the user's text"),
    ]
    first: TurnParts
    later: TurnParts


@dataclass(frozen=True)
class PromptInfo:
    """How a prompt is made without Python; token ids come from ``tokenizer.json``.

    ``image_token`` is the mark of an image. A text that begins with ``bos_token`` is given no special tokens.
    ``template`` is None where the checkpoint has no chat template, or one that these parts cannot express.
    """

    image_token: Name
    bos_token: Text | None
    template: TemplateInfo | None


@dataclass(frozen=True)
class FileInfo:
    """A file of the bundle."""

    sha256: Sha256  # hexadecimal, lower case
    size: Annotated[int, Meta(ge=0, le=2**63 - 1)]  # bytes


# One for each name; msgspec's schema says nothing of a dict's literal keys, so the metadata does.
_GRAPHS = list(get_args(GraphName))
Graphs = Annotated[
    dict[GraphName, GraphInfo],
    Meta(extra_json_schema={"required": _GRAPHS, "propertyNames": {"enum": _GRAPHS}}),
]


@dataclass(frozen=True)
class Manifest:
    """Everything a runtime needs to know of a bundle before it opens a graph.

    ``budget`` is the default of a request; a dense bundle (method ``none``) carries a ratio of 1.
    ``files`` names every file of the bundle but the manifest and ``parity.json``.
    """

    created: Time  # "2026-01-31T12:00:00Z"
    tools: dict[Name, Name]  # package name: version
    source: Source
    model: ModelSpec
    dtype: Dtype  # of activations and of the weights that are not quantized
    pruning: PruningConfig
    budget: Budget
    limits: Limits
    opset: Annotated[int, Meta(ge=23, le=LARGEST)]
    graphs: Graphs
    prompt: PromptInfo
    cpu_decoder: CpuDecoder | None = None
    quantization: Quantization | None = None  # of the decoder's linear layers
    engines: tuple[EngineInfo, ...] = ()
    files: dict[FilePath, FileInfo] = field(default_factory=dict)
    schema_version: Literal[4] = SCHEMA_VERSION

    def text(self) -> str:
        """The file's content: JSON, indented, ending in a newline."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"

    @classmethod
    def parse(cls, content: str | bytes) -> "Manifest":
        """The manifest in ``content``.

        Raises BundleError where it is too large, no JSON, of another version, or not what this definition says.
        """
        document = read_document(
            content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        )
        _check_version(document)
        check(msgspec.inspect.type_info(cls), document)
        check_budget(document["budget"])
        manifest = msgspec.convert(document, cls)
        check_rules(manifest)
        return manifest


def _check_version(document: Any) -> None:
    """Before anything else: of another version nothing else can be said."""
    if not isinstance(document, dict) or json_type(found := document.get("schema_version")) != "integer":
        return
    if found != SCHEMA_VERSION:
        raise BundleError(
            "wrong_version",
            "$.schema_version",
            f"expected schema version {SCHEMA_VERSION} in manifest.json, found {shown(found)}; "
            "use the asap-export release that wrote this bundle, or export it again",
        )


@cache
def manifest_schema() -> dict[str, Any]:
    """The JSON Schema (Draft 2020-12) that every manifest satisfies."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "asap-export bundle manifest",
        **msgspec.json.schema(Manifest),
    }
    for record in schema["$defs"].values():  # every field is written, whatever its default, and no other
        record |= {"required": list(record["properties"]), "additionalProperties": False}
        record["description"] = " ".join(record["description"].split())
        for field_schema in record["properties"].values():
            field_schema.pop("default", None)
    return schema


def schema_text() -> str:
    """The content of manifest.schema.json."""
    return msgspec.json.format(msgspec.json.encode(manifest_schema()), indent=2).decode() + "\n"


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
