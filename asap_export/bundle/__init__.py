"""The folder on disk: manifest, graphs, weights, processor, engines; written whole or not at all."""

from asap_export.bundle.errors import BundleError
from asap_export.bundle.folder import CHAT_TEMPLATE, MANIFEST, TOKENIZER, Bundle
from asap_export.bundle.hashing import sha256_of
from asap_export.bundle.manifest import (
    SCHEMA_VERSION,
    CpuDecoder,
    EngineInfo,
    EnginePart,
    FileInfo,
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
    manifest_schema,
    tool_versions,
)
from asap_export.bundle.writer import BundleWriter, add_engine, utc_now

__all__ = [
    "CHAT_TEMPLATE",
    "MANIFEST",
    "SCHEMA_VERSION",
    "TOKENIZER",
    "Bundle",
    "BundleError",
    "BundleWriter",
    "CpuDecoder",
    "EngineInfo",
    "EnginePart",
    "FileInfo",
    "GenerationInfo",
    "GraphInfo",
    "Limits",
    "Manifest",
    "Profile",
    "PromptInfo",
    "ShapeRange",
    "Source",
    "TemplateInfo",
    "TensorInfo",
    "TurnParts",
    "add_engine",
    "manifest_schema",
    "sha256_of",
    "tool_versions",
    "utc_now",
]
