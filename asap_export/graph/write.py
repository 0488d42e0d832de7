"""The three graphs of a bundle, from a checkpoint: trace, name, place weights, simplify, describe, check."""

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from torch import nn

from asap_export.checkpoint.checkpoint import Checkpoint
from asap_export.checkpoint.loading import TORCH_DTYPES
from asap_export.checkpoint.shards import TensorPlace
from asap_export.graph.describe import attach_functions, describe
from asap_export.graph.naming import name_values
from asap_export.graph.simplify import simplify
from asap_export.graph.skeleton import canonical_operators, weightless_model
from asap_export.graph.trace import GraphPlan, decoder_plan, embedding_plan, trace, vision_plan
from asap_export.graph.weights import Linker, place_weights
from asap_export.progress import Progress, ProgressCallback, no_progress
from asap_export.pruning.config import PruningConfig

__all__ = ["check_graph", "write_graphs"]


def write_graphs(
    checkpoint: Checkpoint,
    pruning: PruningConfig,
    dtype: str,
    folder: Path,
    link: Linker,
    progress: ProgressCallback = no_progress,
) -> list[Path]:
    """Write ``vision_encoder.onnx``, ``embed_tokens.onnx`` and ``decoder.onnx`` into ``folder``.

    dtype: "fp32", "fp16" or "bf16"; ``link`` places a file of the checkpoint in the folder. Raises UserError
    where a weight does not fit into the dtype.
    """
    torch_dtype = TORCH_DTYPES[dtype]
    llava = weightless_model(checkpoint.config, torch_dtype)
    plans: list[Callable[[], GraphPlan]] = [
        lambda: vision_plan(llava, checkpoint.spec, torch_dtype),
        lambda: embedding_plan(llava, checkpoint.spec, torch_dtype),
        lambda: decoder_plan(llava, checkpoint.spec, torch_dtype, pruning),
    ]
    sources = _weights_of(llava, checkpoint)
    paths = []
    for make_plan in plans:
        plan = make_plan()
        stage = f"Export {plan.name}"

        def report(fraction: float, detail: str, stage: str = stage) -> None:
            progress(Progress(stage, fraction, detail))

        paths.append(_write_graph(plan, llava, sources, pruning, dtype, folder, link, report))
    return paths


def _write_graph(
    plan: GraphPlan,
    llava: nn.Module,
    sources: Mapping[int, TensorPlace],
    pruning: PruningConfig,
    dtype: str,
    folder: Path,
    link: Linker,
    report: Callable[[float, str], None],
) -> Path:
    report(0.0, "trace")
    with canonical_operators(llava):
        model = trace(plan)
    report(0.7, "simplify and check")
    name_values(model, plan)
    simplify(model)
    attach_functions(model)
    check_graph(ir.to_proto(model))
    report(0.8, "place weights")
    parameters = dict(plan.module.named_parameters(remove_duplicate=False))
    places = {
        value.name: sources[id(parameters[value.name])]
        for value in model.graph.inputs
        if value.name in parameters
    }
    place_weights(
        model,
        places,
        dtype,
        folder,
        link,
        lambda done, total: report(0.8 + 0.2 * done / total, f"convert weights, {done} of {total}"),
    )
    describe(model, pruning)
    path = folder / f"{plan.name}.onnx"
    ir.save(model, path)
    report(1.0, "")
    return path


def _weights_of(llava: nn.Module, checkpoint: Checkpoint) -> dict[int, TensorPlace]:
    """The stored tensor of every parameter object; tied parameters are one object and one tensor."""
    return {id(parameter): checkpoint.tensors[name] for name, parameter in llava.named_parameters()}


def check_graph(model: onnx.ModelProto) -> None:
    """onnx's full check and strict shape inference, on a graph whose weights are still inputs.

    Raises onnx's own errors: a graph that fails is a fault of the exporter, not of the user.
    """
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
