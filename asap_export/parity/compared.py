"""What is compared with PyTorch: a bundle's own graphs, a float32 copy of them, or their first layers."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir
import torch

from asap_export.bundle import Bundle
from asap_export.bundle.manifest import EngineGraph
from asap_export.checkpoint.loading import TORCH_DTYPES
from asap_export.errors import UserError
from asap_export.graph.cpu import lower_for_cpu
from asap_export.graph.cpu.activations import ROUNDING, keep_activations
from asap_export.graph.cuda import lower_for_cuda
from asap_export.graph.float32 import write_float32_copy
from asap_export.graph.shorten import keep_first_layers
from asap_export.parity.forms import DecoderForm, StoredGraph
from asap_export.parity.recording import Ears
from asap_export.runtime.model import Model
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.openvino_session import Precision, choose_precision
from asap_export.runtime.providers import Provider, choose_provider, engine_flavor, open_sessions
from asap_export.runtime.session import Sessions

__all__ = ["ComparedGraphs", "check_layers", "compared_graphs"]

_CLOSED = ("tensorrt", "openvino")  # what they make of a graph cannot be laid open
_OTHERS: tuple[EngineGraph, ...] = ("vision_encoder", "embed_tokens")


@dataclass(frozen=True)
class ComparedGraphs:
    """Graphs to compare; no session is open yet.

    ``bundle`` is the one under test, with the manifest of the shortened model where its first layers stand for it;
    ``forms`` are its decoder's, first the one that answers; ``folder`` holds the other two graphs; ``dtype`` is
    that of the graphs, which a float32 copy of a bfloat16 bundle does not share with the manifest; ``notes`` say
    what is not compared.
    """

    bundle: Bundle
    forms: tuple[DecoderForm, ...]
    folder: Path
    dtype: str
    provider: Provider
    is_shortened: bool
    precision: str  # of products: as wide as ``dtype``, or bf16 where OpenVINO is told to compute in it
    notes: tuple[str, ...]

    @property
    def is_copy(self) -> bool:
        return self.dtype != self.bundle.manifest.dtype

    @property
    def computed(self) -> str:
        """The dtype whose rounding is to be expected."""
        return "bf16" if self.precision == "bf16" else self.dtype

    @property
    def torch_dtype(self) -> torch.dtype:
        return TORCH_DTYPES[self.dtype]

    @property
    def preprocess(self) -> OnnxRuntimeSession:
        """A new session on the graph of that name."""
        return OnnxRuntimeSession(self.bundle.graph_path("preprocess"), "cpu")

    def open(self, ears: Ears) -> Model:
        """Sessions for all three graphs, on which ``ears`` listen in."""
        running = self.forms[0]
        if self.provider in _CLOSED:
            precision: Precision = "bf16" if self.precision == "bf16" else "f32"
            sessions = open_sessions(self.bundle, self.provider, precision=precision)
        else:
            vision, embedding = (
                OnnxRuntimeSession(
                    self.folder / self.bundle.manifest.graphs[graph].file, self.provider, fold_constants=False
                )
                for graph in _OTHERS
            )
            sessions = Sessions(vision, embedding, running.open(self.provider))
        return Model(
            self.bundle, ears.around(sessions), self.preprocess, self.provider, self.dtype, running.caches
        )


def check_layers(bundle: Bundle, layers: int | None, provider: Provider) -> None:
    """Raise UserError where the first ``layers`` layers cannot be compared alone."""
    if layers is None:
        return
    total, pruning = bundle.manifest.model.layers, bundle.manifest.pruning
    fewest = pruning.prune_after + 1 if pruning.prunes else 1
    if not fewest <= layers <= total:
        reason = f", because the cut comes after layer {pruning.prune_after}" if pruning.prunes else ""
        raise UserError(f"expected --layers between {fewest} and {total}{reason}, found {layers}; change it")
    if provider in _CLOSED:
        raise UserError(
            f"expected --provider cpu or cuda with --layers, found {provider}, whose graphs cannot be shortened; "
            "leave --layers out or change the provider"
        )


@contextmanager
def compared_graphs(
    bundle: Bundle, provider: Provider, layers: int | None = None, precision: Precision = "auto"
) -> Iterator[ComparedGraphs]:
    """The bundle's graphs, or, where bfloat16 meets a CPU, their float32 copies, which go with the block.

    With ``layers``, of the decoder only the first ones, run by ONNX Runtime.
    """
    notes: list[str] = []
    decoder = onnx.load(bundle.graph_path("decoder"), load_external_data=False)
    total = bundle.manifest.model.layers
    shortened = layers is not None and layers < total
    if shortened:
        assert layers is not None
        decoder, bundle = _shortened(decoder, layers), _with_layers(bundle, layers)
        notes.append(
            f"only the first {layers} of {total} decoder layers were compared, with the vision encoder, the "
            f"embeddings, the pruning, the final norm and the head; layers {layers + 1} to {total} were not"
        )
    without_device = provider == "auto" and not torch.cuda.is_available()
    if shortened and without_device:
        provider = "cpu"  # OpenVINO's graphs are whole
    on_cpu = provider == "cpu" or without_device
    if bundle.manifest.dtype != "bf16" or not on_cpu:
        provider = choose_provider(_without_engines(bundle) if layers is not None else bundle, provider)
        chosen = choose_precision(precision) if provider == "openvino" else ""
        forms = _forms(bundle, StoredGraph(decoder, bundle.path), provider, shortened, chosen)
        if provider == "tensorrt":
            notes.append(
                "engines cannot be laid open: their choices were judged by how close PyTorch's own were"
            )
        if provider == "openvino":
            notes.append(
                f"OpenVINO's graphs cannot be laid open: their choices, computed in {chosen}, were judged by how "
                "close PyTorch's own were"
            )
        described = bundle.manifest.cpu_decoder
        if provider == "cpu" and described is not None and ROUNDING in described.passes:
            notes.append(
                "int8-activations was left out of the comparison: beside activations of 8 bits no small fault "
                "would show; what they cost in accuracy, asap-export eval measures"
            )
        dtype = bundle.manifest.dtype
        yield ComparedGraphs(bundle, forms, bundle.path, dtype, provider, shortened, chosen, tuple(notes))
        return
    with tempfile.TemporaryDirectory(prefix="asap-export-") as name:
        folder = Path(name)
        for other in _OTHERS:
            stored = onnx.load(bundle.graph_path(other), load_external_data=False)
            write_float32_copy(stored, bundle.path, folder)
        write_float32_copy(decoder, bundle.path, folder)
        notes.append(
            "ONNX Runtime's CPU provider cannot run bf16: what was checked is a float32 copy of the same graphs "
            "with the same bf16 weights, against a float32 reference with these weights"
        )
        copy = StoredGraph(onnx.load(folder / "decoder.onnx", load_external_data=False), folder)
        forms = (DecoderForm.of("decoder", copy),)
        yield ComparedGraphs(bundle, forms, folder, "fp32", "cpu", shortened, "", tuple(notes))


def _forms(
    bundle: Bundle, canonical: StoredGraph, provider: Provider, shortened: bool, precision: str
) -> tuple[DecoderForm, ...]:
    """The forms of the decoder to compare: on the CPU what the bundle has for it and ``decoder.onnx``, on
    CUDA what runs there.

    Activations are compared unrounded: beside 8-bit ones no small fault would show.
    """
    plain = DecoderForm.of("decoder", canonical)
    if provider == "tensorrt":  # and the graph on the CPU, where that can run it
        engine = DecoderForm.of_engines(bundle, engine_flavor(bundle))
        return (engine,) if bundle.manifest.dtype == "bf16" else (engine, plain)
    if provider == "openvino":
        inlined = DecoderForm.of_inlined(bundle)
        return (inlined,) if precision == "bf16" else (inlined, plain)
    if provider == "cuda":
        return (_cuda_form(bundle, canonical, shortened),)
    described = bundle.manifest.cpu_decoder
    if provider != "cpu" or described is None:
        return (plain,)
    if shortened:
        model = ir.from_proto(canonical.model)
        lower_for_cpu(model, tuple(name for name in described.passes if name != ROUNDING))
        stored = ir.to_proto(model)
    else:
        stored = onnx.load(bundle.decoder_path_for("cpu"), load_external_data=False)
        keep_activations(stored)
    return DecoderForm.of("decoder.cpu", StoredGraph(stored, bundle.path)), plain


def _cuda_form(bundle: Bundle, canonical: StoredGraph, shortened: bool) -> DecoderForm:
    """The decoder that runs on CUDA."""
    if bundle.manifest.cuda_decoder is None:
        return DecoderForm.of("decoder", canonical)
    if shortened:
        model = ir.from_proto(canonical.model)
        lower_for_cuda(model)
        stored = ir.to_proto(model)
    else:
        stored = onnx.load(bundle.decoder_path_for("cuda"), load_external_data=False)
    return DecoderForm.of("decoder.cuda", StoredGraph(stored, bundle.path))


def _shortened(decoder: onnx.ModelProto, layers: int) -> onnx.ModelProto:
    model = ir.from_proto(decoder)
    keep_first_layers(model, layers)
    return ir.to_proto(model)


def _with_layers(bundle: Bundle, layers: int) -> Bundle:
    model = replace(bundle.manifest.model, layers=layers)
    return replace(bundle, manifest=replace(bundle.manifest, model=model))


def _without_engines(bundle: Bundle) -> Bundle:
    return replace(bundle, manifest=replace(bundle.manifest, engines=()))
