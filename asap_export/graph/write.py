"""The model's three graphs, from a checkpoint: trace, name, place weights, simplify, describe, check."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir
from torch import nn

from asap_export.checkpoint.checkpoint import Checkpoint
from asap_export.checkpoint.loading import TORCH_DTYPES
from asap_export.checkpoint.shards import TensorPlace
from asap_export.checkpoint.unread import unread_weights
from asap_export.errors import UserError
from asap_export.graph.codes import Form
from asap_export.graph.cpu import lower_for_cpu
from asap_export.graph.cuda import cuts, lower_for_cuda
from asap_export.graph.describe import attach_functions, describe
from asap_export.graph.naming import name_values
from asap_export.graph.quantize import Linear, linear_layers, quantize_layers, reason_to_stay
from asap_export.graph.repeat import repeat_last_layer
from asap_export.graph.simplify import simplify
from asap_export.graph.skeleton import weightless_model
from asap_export.graph.trace import GraphPlan, decoder_plan, embedding_plan, trace, vision_plan
from asap_export.graph.weights import Linker, place_weights
from asap_export.progress import Progress, ProgressCallback, no_progress
from asap_export.pruning.config import PruningConfig
from asap_export.spec import DEFAULT_CPU_PASSES, CpuPass, Quantization

__all__ = ["CPU_DECODER", "CUDA_DECODER", "QuantizeAs", "Written", "check_graph", "write_graphs"]

CPU_DECODER = "decoder.cpu.onnx"
CUDA_DECODER = "decoder.cuda.onnx"


@dataclass(frozen=True)
class QuantizeAs:
    """How the decoder's linear layers are to be quantized, and the operators that are to read them."""

    quantization: Quantization
    form: Form


@dataclass(frozen=True)
class Written:
    """What became of the decoder's linear layers: parameter names, and why those that were not quantized stay."""

    quantized: tuple[str, ...] = ()
    unquantized: dict[str, str] = field(default_factory=dict)


def write_graphs(
    checkpoint: Checkpoint,
    pruning: PruningConfig,
    dtype: str,
    folder: Path,
    link: Linker,
    progress: ProgressCallback = no_progress,
    quantize_as: QuantizeAs | None = None,
    cpu_passes: tuple[CpuPass, ...] = DEFAULT_CPU_PASSES,
) -> Written:
    """Write ``vision_encoder.onnx``, ``embed_tokens.onnx`` and ``decoder.onnx`` into ``folder``, and what
    ``cpu_passes`` make of the last, ``decoder.cpu.onnx``: not for bf16, which the CPU provider cannot run. Where
    it cuts, ``decoder.cuda.onnx`` is its form for CUDA.

    dtype: "fp32", "fp16" or "bf16"; ``link`` places a file of the checkpoint in the folder, where weights are
    not quantized. Raises UserError where a weight does not fit into the dtype, and where no graph reads one.
    """
    torch_dtype = TORCH_DTYPES[dtype]
    llava = weightless_model(checkpoint.config, torch_dtype)
    plans: list[Callable[[bool], GraphPlan]] = [
        lambda whole: vision_plan(llava, checkpoint.spec, torch_dtype, whole),
        lambda _: embedding_plan(llava, checkpoint.spec, torch_dtype),
        lambda whole: decoder_plan(llava, checkpoint.spec, torch_dtype, pruning, whole),
    ]
    # Next to quantized weights the shards would be ballast: what stays of them is written anew.
    writer = _GraphWriter(llava, checkpoint, pruning, dtype, folder, None if quantize_as else link, progress)
    for make_plan in plans:
        writer.write(make_plan, quantize_as)
    writer.require_all_read()
    if cpu_passes and dtype != "bf16":
        decoder = ir.load(folder / "decoder.onnx")
        lower_for_cpu(decoder, cpu_passes)
        ir.save(decoder, folder / CPU_DECODER)
    decoder = ir.load(folder / "decoder.onnx")
    if cuts(decoder):
        lower_for_cuda(decoder)
        ir.save(decoder, folder / CUDA_DECODER)
    return writer.written


class _GraphWriter:
    """Everything that the graphs of one bundle share."""

    def __init__(
        self,
        llava: nn.Module,
        checkpoint: Checkpoint,
        pruning: PruningConfig,
        dtype: str,
        folder: Path,
        link: Linker | None,
        progress: ProgressCallback,
    ) -> None:
        self.llava, self.checkpoint, self.pruning, self.dtype = llava, checkpoint, pruning, dtype
        self.folder, self.link, self.progress = folder, link, progress
        # Tied parameters are one object with one name and one tensor.
        self.names = {id(parameter): name for name, parameter in llava.named_parameters()}
        self.read: set[TensorPlace] = set()
        self.written = Written()

    def write(self, make_plan: Callable[[bool], GraphPlan], quantize_as: QuantizeAs | None) -> None:
        """Trace one graph and write it with its weights."""
        plan = make_plan(False)

        def report(fraction: float, detail: str) -> None:
            self.progress(Progress(f"Export {plan.name}", fraction, detail))

        def traced(done: int, total: int) -> None:
            rest = f"trace layer {done + 1} of {total}" if done < total else "write as ONNX operators"
            report(0.3 * done / total, rest)

        def traced_model(plan: GraphPlan) -> ir.Model:
            report(0.0, "trace")
            model = trace(plan, traced)
            report(0.7, "simplify and check")
            name_values(model, plan)
            simplify(model)
            return model

        model = traced_model(plan)
        if plan.stack is not None and not repeat_last_layer(model, plan.stack, plan.layers):
            plan = make_plan(True)
            model = traced_model(plan)
        attach_functions(model)
        check_graph(ir.to_proto(model))
        names = {
            str(value.name): self.names[id(plan.parameters[value.name])]
            for value in model.graph.inputs
            if value.name in plan.parameters
        }
        stored = self.checkpoint.tensors
        sources = {value: stored[name] for value, name in names.items() if name in stored}
        inputs = {value.name: value for value in model.graph.inputs}
        for value in names.keys() - sources.keys():  # none of these is read, or the checkpoint were refused
            model.graph.inputs.remove(inputs[value])
        self.read.update(place for value, place in sources.items() if inputs[value].uses())
        report(0.8, "place weights")
        if plan.name == "decoder" and quantize_as:
            self._quantize(model, names, sources, quantize_as, report)

        def converted(done: int, total: int) -> None:
            report(0.8 + 0.2 * done / total, f"write weights, {done} of {total}")

        place_weights(model, sources, self.dtype, self.folder, self.link, converted)
        describe(model, self.pruning)
        ir.save(model, self.folder / f"{plan.name}.onnx")
        report(1.0, "")

    def require_all_read(self) -> None:
        """Raise UserError where a weight of the checkpoint has no part in any graph, though it should have one."""
        if unread := unread_weights(self.checkpoint.tensors, self.read, self.checkpoint.config):
            more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
            raise UserError(
                f"expected every weight of {self.checkpoint.source} in a graph, found none that reads {unread[0]}"
                f"{more}; the bundle would compute another model: please report this checkpoint"
            )

    def _quantize(
        self,
        model: ir.Model,
        names: Mapping[str, str],
        sources: dict[str, TensorPlace],
        quantize_as: QuantizeAs,
        report: Callable[[float, str], None],
    ) -> None:
        """Quantize what can be, take it out of ``sources``, and note the rest."""
        layers: dict[str, Linear] = {}
        unquantized: dict[str, str] = {}
        for layer in linear_layers(model.graph, sources):
            name = names[str(layer.weight.name)]
            tied = "it is the token embedding too, which is not quantized" if _is_embedding(name) else None
            reason = tied or reason_to_stay(layer, quantize_as.quantization)
            if reason:
                unquantized[name] = reason
            else:
                layers[name] = layer

        def quantized(done: int, total: int) -> None:
            report(0.8 + 0.2 * done / total, f"quantize weights, {done} of {total}")

        quantize_layers(
            model,
            layers,
            sources,
            quantize_as.quantization,
            quantize_as.form,
            self.dtype,
            self.folder,
            quantized,
        )
        for layer in layers.values():
            del sources[str(layer.weight.name)]
        self.written = Written(tuple(layers), unquantized)


def _is_embedding(name: str) -> bool:
    return name.endswith("embed_tokens.weight")


def check_graph(model: onnx.ModelProto) -> None:
    """onnx's full check and strict shape inference, on a graph whose weights are still inputs.

    Raises onnx's own errors: a graph that fails is a fault of the exporter, not of the user.
    """
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
