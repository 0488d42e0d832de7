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
from asap_export.bundle.records import (
    CpuDecoder,
    EngineGraph,
    EngineInfo,
    EnginePart,
    FileInfo,
    FilePath,
    Flavor,
    GenerationInfo,
    GraphInfo,
    GraphName,
    Limits,
    Profile,
    PromptInfo,
    ShapeRange,
    Source,
    TemplateInfo,
    TensorDtype,
    TensorInfo,
    Time,
    TurnParts,
)
from asap_export.bundle.rules import check_budget, check_rules
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.spec import LARGEST, Dtype, ModelSpec, Name, Quantization

__all__ = [
    "SCHEMA_VERSION",
    "CpuDecoder",
    "Dtype",
    "EngineGraph",
    "EngineInfo",
    "EnginePart",
    "FileInfo",
    "Flavor",
    "GenerationInfo",
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

SCHEMA_VERSION: Literal[6] = 6

_TOOLS = (
    "asap-export", "torch", "transformers", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "onnxruntime-gpu",
    "polygraphy", "tensorrt", "tensorrt-rtx", "numpy", "pillow", "safetensors", "tokenizers",
)  # fmt: skip

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
    generation: GenerationInfo
    cpu_decoder: CpuDecoder | None = None
    cuda_decoder: GraphInfo | None = None  # decoder.onnx once more, for ONNX Runtime's CUDA provider
    quantization: Quantization | None = None  # of the decoder's linear layers
    engines: tuple[EngineInfo, ...] = ()
    files: dict[FilePath, FileInfo] = field(default_factory=dict)
    schema_version: Literal[6] = SCHEMA_VERSION

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
        check_rules(manifest.model, manifest.pruning, manifest.quantization, manifest.engines)
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
