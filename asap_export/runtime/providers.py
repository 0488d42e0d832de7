"""Where a bundle runs: in ONNX Runtime on the CPU or on CUDA, in OpenVINO, or on its own TensorRT engines."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import onnxruntime as ort

from asap_export.bundle import Bundle
from asap_export.bundle.manifest import EngineGraph, Flavor
from asap_export.cuda import compute_capabilities
from asap_export.errors import UserError
from asap_export.runtime.cache import CacheForm
from asap_export.runtime.chain import ChainedSession, Link
from asap_export.runtime.onnxruntime_session import EXECUTION_PROVIDERS, OnnxRuntimeSession
from asap_export.runtime.openvino_session import (
    OpenVinoSession,
    Precision,
    StatefulSession,
    choose_precision,
    missing_openvino,
)
from asap_export.runtime.padded_session import EarlySession, PaddedSession
from asap_export.runtime.session import Session, Sessions
from asap_export.runtime.tensorrt_session import TensorRtSession, new_stream

__all__ = [
    "Provider",
    "cache_form",
    "check_precision",
    "choose_provider",
    "engine_flavor",
    "graph_file",
    "open_sessions",
    "weight_memory",
]

Provider = Literal["auto", "cpu", "openvino", "cuda", "tensorrt"]

_FLAVOURS: tuple[Flavor, ...] = ("tensorrt", "tensorrt_rtx")
# Bytes of weights from which on OpenVINO takes no longer than ONNX Runtime to load a model and answer once.
_WORTH_COMPILING = 500_000_000


def choose_provider(bundle: Bundle, provider: Provider = "auto") -> Provider:
    """The provider that "auto" stands for here, or ``provider`` itself where it can run this bundle.

    "auto" takes the bundle's engines where a CUDA device and their TensorRT are present, else ONNX Runtime on
    CUDA. Without a device it takes OpenVINO where that is installed and faster (docs/performance.md): on a CPU
    with instructions for bf16, for large weights that are not quantized; else ONNX Runtime on the CPU. Raises
    UserError where the provider is unknown or cannot run the bundle.
    """
    if provider not in get_args(Provider):
        raise UserError(f"expected a provider among {', '.join(get_args(Provider))}, found {provider}")
    if provider == "auto":
        provider = _best(bundle)
    if provider == "tensorrt":
        engine_flavor(bundle)
    if provider == "openvino":
        _check_openvino(bundle)
    if provider == "cpu" and bundle.manifest.dtype == "bf16":
        raise UserError(
            "expected an fp16 or fp32 bundle for ONNX Runtime's CPU provider, found bf16, which needs CUDA "
            "or TensorRT; use --provider cuda, or export with --dtype fp16 or fp32"
        )
    return provider


def check_precision(provider: Provider, precision: Precision) -> None:
    """Raise UserError where a precision is given that the provider would not heed."""
    if precision != "auto" and provider != "openvino":
        raise UserError(
            f"expected --precision with --provider openvino, found it with {provider}; change one of them"
        )


def open_sessions(
    bundle: Bundle,
    provider: Provider,
    threads: int | None = None,
    mapped: bool = False,
    precision: Precision = "auto",
) -> Sessions:
    """Sessions for the model's three graphs on a provider that ``choose_provider`` returned.

    For ONNX Runtime's CPU provider are ``threads``, of one operator, by default one per core, and ``mapped``:
    weights stay in their files (see ``weight_memory``). ``precision`` is OpenVINO's: what it computes products in.
    """
    if provider == "openvino":
        return _openvino_sessions(bundle, choose_precision(precision, threads), threads)
    stream = new_stream() if provider == "tensorrt" else None

    def session(graph: EngineGraph) -> Session:
        if provider != "tensorrt":
            return OnnxRuntimeSession(graph_file(bundle, graph, provider), provider, threads, mapped)
        return _engine_session(bundle, graph, stream)

    return Sessions(session("vision_encoder"), session("embed_tokens"), session("decoder"))


def _openvino_sessions(bundle: Bundle, precision: str, threads: int | None) -> Sessions:
    def plain(graph: EngineGraph) -> OpenVinoSession:
        return OpenVinoSession(bundle.graph_path(graph), precision, threads)

    *early, late = bundle.inlined_decoder
    parts: list[EarlySession | PaddedSession | StatefulSession] = []
    for file in early:
        prompts, step = PaddedSession(OpenVinoSession(file, precision, threads)), bundle.inlined_step
        parts.append(
            prompts if step is None else EarlySession(prompts, StatefulSession(step, precision, threads))
        )
    parts.append(StatefulSession(late, precision, threads))
    outputs = [tensor.name for tensor in bundle.manifest.graphs["decoder"].outputs]
    decoder = ChainedSession([Link(part, part.inputs) for part in parts], outputs)
    return Sessions(plain("vision_encoder"), plain("embed_tokens"), decoder)


def _pays_in_openvino(bundle: Bundle) -> bool:
    try:
        _check_openvino(bundle)
    except UserError:
        return False
    large = weight_memory(bundle)[0] >= _WORTH_COMPILING
    return large and bundle.manifest.quantization is None and choose_precision() == "bf16"


def _check_openvino(bundle: Bundle) -> None:
    if find_spec("openvino") is None:
        raise missing_openvino()
    if not bundle.inlined_decoder:
        raise UserError(
            f"expected a decoder without functions in {bundle.path}, found none: an older version made it; "
            "export it again or use --provider cpu"
        )
    if bundle.manifest.dtype == "bf16":
        raise UserError(
            "expected an fp16 or fp32 bundle for OpenVINO, found bf16; export with --dtype fp16 or fp32, and "
            "OpenVINO computes in bf16 where the CPU is fast in it"
        )


def graph_file(bundle: Bundle, graph: EngineGraph, provider: Provider) -> Path:
    """The ONNX file that a provider of ONNX Runtime runs; the decoder may have a form of its own for it."""
    return bundle.decoder_path_for(provider) if graph == "decoder" else bundle.graph_path(graph)


def cache_form(bundle: Bundle, provider: Provider) -> CacheForm:
    """What the decoder of a provider does with its caches."""
    decoder = bundle.manifest.cpu_decoder
    if provider != "cpu" or decoder is None:
        return CacheForm()
    inputs, outputs = (
        [(tensor.name, tensor.dims) for tensor in tensors] for tensors in (decoder.inputs, decoder.outputs)
    )
    return CacheForm.of(inputs, outputs)


def weight_memory(bundle: Bundle) -> tuple[int, int]:
    """Bytes of a bundle's weights as stored, and as ONNX Runtime's CPU provider holds them: fp16 as float32."""
    sizes = {name: file.size for name, file in bundle.manifest.files.items() if name.startswith("weights/")}
    stored = sum(sizes.values())
    packed = sum(size for name, size in sizes.items() if ".int4." in name or ".int8." in name)
    return stored, stored + (stored - packed if bundle.manifest.dtype == "fp16" else 0)


def _engine_session(bundle: Bundle, graph: EngineGraph, stream: Any) -> Session:
    """The graph's engine, or a chain of the engines of its parts."""

    whole = bundle.manifest.graphs[graph]
    links = []
    for engine in bundle.engines(graph, engine_flavor(bundle)):
        part = whole if engine.part is None else replace(whole, inputs=engine.part.inputs)
        session = TensorRtSession(bundle.path / engine.file, engine, part, stream)
        links.append(Link(session, [tensor.name for tensor in part.inputs]))
    return ChainedSession(links, [tensor.name for tensor in whole.outputs])


def _best(bundle: Bundle) -> Provider:
    if not compute_capabilities():
        return "openvino" if _pays_in_openvino(bundle) else "cpu"
    try:
        engine_flavor(bundle)
        return "tensorrt"
    except UserError:
        return "cuda" if EXECUTION_PROVIDERS["cuda"] in ort.get_available_providers() else "cpu"


def engine_flavor(bundle: Bundle) -> Flavor:
    """The TensorRT flavor whose engines of this bundle run on this machine.

    Raises UserError where there is none: no engines, none for an installed TensorRT, no device they fit.
    """
    built = [flavor for flavor in _FLAVOURS if _has_engines(bundle, flavor)]
    if not built:
        raise UserError(
            f"expected TensorRT engines in {bundle.path}, found none; export with --engine trt, or use "
            "--provider cpu or cuda"
        )
    installed = [flavor for flavor in built if find_spec(flavor) is not None]
    if not installed:
        raise _missing_package(built[0], built[0])
    devices = compute_capabilities()
    if not devices:
        raise UserError(
            "expected a CUDA device for TensorRT, found none; use --provider cpu, or run where there is a GPU"
        )
    for flavor in installed:
        targets = _targets(bundle, flavor)
        if devices[0] in targets or "current" in targets:
            _require_torch(flavor)
            return flavor
    raise UserError(
        f"expected engines for compute capability {devices[0]} of this GPU, found engines for "
        f"{', '.join(_targets(bundle, installed[0]))}; export with --engine trt on this machine"
    )


def _require_torch(flavor: Flavor) -> None:
    """It holds the device buffers of an engine's inputs and outputs."""
    if find_spec("torch") is None:
        raise _missing_package("torch", flavor)


def _missing_package(name: str, flavor: Flavor) -> UserError:
    extra = "gpu" if flavor == "tensorrt" else "rtx"
    return UserError(
        f"expected the Python package {name} for this bundle's engines, found none; "
        f'pip install "asap-export[{extra}]"'
    )


def _has_engines(bundle: Bundle, flavor: Flavor) -> bool:
    return all(bundle.engines(graph, flavor) for graph in get_args(EngineGraph))


def _targets(bundle: Bundle, flavor: Flavor) -> tuple[str, ...]:
    return bundle.engines("decoder", flavor)[0].compute_capabilities
