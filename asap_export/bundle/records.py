"""What a manifest is made of: one record for each kind of thing that it names, and the types of their values."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from asap_export.spec import Count, CpuPass, Name, Number

__all__ = [
    "CpuDecoder",
    "EngineGraph",
    "EngineInfo",
    "EnginePart",
    "FileInfo",
    "FilePath",
    "Flavor",
    "GenerationInfo",
    "GraphInfo",
    "GraphName",
    "Limits",
    "Profile",
    "PromptInfo",
    "ShapeRange",
    "Source",
    "TemplateInfo",
    "TensorDtype",
    "TensorInfo",
    "Text",
    "Time",
    "TurnParts",
]

TensorDtype = Literal["fp32", "fp16", "bf16", "int64", "int32", "bool", "uint8"]
GraphName = Literal["preprocess", "vision_encoder", "embed_tokens", "decoder"]
EngineGraph = Literal["vision_encoder", "embed_tokens", "decoder"]  # preprocess runs on the host
Flavor = Literal["tensorrt", "tensorrt_rtx"]

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
    flavor: Flavor
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
class GenerationInfo:
    """How tokens are chosen where a request does not say: what the checkpoint's generation_config.json asks for.

    Names and meanings are transformers'; ``temperature`` 0 is greedy, ``top_k`` 0 takes all tokens. ``left_out``
    names what else that file asks for and no answer honours.
    """

    max_new_tokens: Count = 256
    min_new_tokens: Number = 0  # before these an end token is not taken
    temperature: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    top_k: Number = 0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    no_repeat_ngram_size: Number = 0
    stop: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    left_out: tuple[Name, ...] = ()


@dataclass(frozen=True)
class FileInfo:
    """A file of the bundle."""

    sha256: Sha256  # hexadecimal, lower case
    size: Annotated[int, Meta(ge=0, le=2**63 - 1)]  # bytes
