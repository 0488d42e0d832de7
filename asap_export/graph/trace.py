"""From a PyTorch module to an ONNX graph with the project's names, and no weights in it yet."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
import torch._dynamo.config
import torch._functorch.config
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from asap_export.graph.canonical import canonical_operators, canonical_translations
from asap_export.graph.operators import OPSET_VERSION, translations
from asap_export.graph.repeat import DECODER, TOWER, Stack, layers_to_trace
from asap_export.model.decoder import Decoder
from asap_export.model.embedding import TokenEmbedding
from asap_export.model.vision import VisionEncoder
from asap_export.pruning.config import PruningConfig
from asap_export.spec import ModelSpec

__all__ = ["GRAPHS", "GraphPlan", "decoder_plan", "embedding_plan", "planned_inputs", "trace", "vision_plan"]

GRAPHS = ("vision_encoder", "embed_tokens", "decoder")

_LONGEST = 1 << 20  # of any dimension
_SUMS = ("total_sequence", "early_total_sequence")  # of past and new tokens

# Lengths to trace with: all different, none 0 or 1, so that no two dimensions pass for the same.
_BATCH, _SEQUENCE, _PAST, _EARLY_PAST, _TILES, _VISUAL = 2, 37, 5, 7, 3, 53


@dataclass(frozen=True)
class Input:
    """An input of a graph: its name, an example to trace with, and the names of its dynamic dimensions."""

    name: str
    example: Tensor
    dims: dict[int, str]


@dataclass(frozen=True)
class GraphPlan:
    """What to trace, and what its inputs and outputs are called.

    ``arguments`` nests the inputs as the module's forward wants them; ``outputs`` gives each output's name
    and dimensions. ``parameters``, by their names in the graph, are those of the whole module, of whose ``stack``
    of layers ``module`` may have the first ones only (``graph/repeat.py``); ``layers`` says how many there are.
    """

    name: str
    doc: str
    module: nn.Module
    arguments: tuple[Any, ...]
    outputs: dict[str, tuple[int | str, ...]]
    parameters: dict[str, nn.Parameter]
    stack: Stack | None = None
    layers: int = 0


def vision_plan(llava: nn.Module, spec: ModelSpec, dtype: torch.dtype, whole: bool = False) -> GraphPlan:
    """``vision_encoder.onnx``: pixel_values [tiles, 3, h, w], gather_index [visual_tokens] -> image_features."""
    pixels = torch.empty(_TILES, 3, spec.tile_size, spec.tile_size, dtype=dtype, device="meta")
    index = torch.empty(_VISUAL, dtype=torch.int64, device="meta")
    module = VisionEncoder(llava)
    parameters, layers = _parameters(module), module.used_layers
    module.keep_first_layers(
        layers if whole else layers_to_trace(TOWER, module.tower.encoder.layers[:layers])
    )
    return GraphPlan(
        "vision_encoder",
        "Tiles of all images of a prompt to visual tokens: vision tower, projector, packing of the tiles.",
        module,
        (Input("pixel_values", pixels, {0: "tiles"}), Input("gather_index", index, {0: "visual_tokens"})),
        {"image_features": ("visual_tokens", spec.hidden_size)},
        parameters,
        TOWER,
        layers,
    )


def embedding_plan(llava: nn.Module, spec: ModelSpec, dtype: torch.dtype) -> GraphPlan:
    """``embed_tokens.onnx``: input_ids [batch, sequence], image_features [visual_tokens, D] -> inputs_embeds."""
    ids = torch.empty(_BATCH, _SEQUENCE, dtype=torch.int64, device="meta")
    features = torch.empty(_VISUAL, spec.hidden_size, dtype=dtype, device="meta")
    module = TokenEmbedding(llava)
    return GraphPlan(
        "embed_tokens",
        "Token embeddings, with the visual tokens in the places of the image tokens.",
        module,
        (
            Input("input_ids", ids, {0: "batch", 1: "sequence"}),
            Input("image_features", features, {0: "visual_tokens"}),
        ),
        {"inputs_embeds": ("batch", "sequence", spec.hidden_size)},
        _parameters(module),
    )


def decoder_plan(
    llava: nn.Module, spec: ModelSpec, dtype: torch.dtype, pruning: PruningConfig, whole: bool = False
) -> GraphPlan:
    """``decoder.onnx``: prefill, later turns and decode steps in one graph.

    Of layers that are alike the plan has two behind the cut, unless it is to be ``whole``; ``repeat_last_layer``
    makes the others.
    """
    module = _DecoderForExport(Decoder(llava, pruning))
    parameters = _parameters(module)
    early = pruning.prune_after if pruning.prunes else 0
    stack = module.decoder.language_model.layers
    layers = spec.layers if whole else layers_to_trace(DECODER, stack, early)
    module.decoder.keep_first_layers(layers)
    split_cache = pruning.prunes and not pruning.trim_early_kv
    early_layers = pruning.prune_after if split_cache else 0

    def integers(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int64, device="meta")

    def past(layer: int, part: str) -> Input:
        early = layer < early_layers
        length = _EARLY_PAST if early else _PAST
        shape = _BATCH, spec.kv_heads, length, spec.head_dim
        dims = {0: "batch", 2: "early_past_sequence" if early else "past_sequence"}
        return Input(f"past_key_values.{layer}.{part}", torch.empty(*shape, dtype=dtype, device="meta"), dims)

    embeds = torch.empty(_BATCH, _SEQUENCE, spec.hidden_size, dtype=dtype, device="meta")
    arguments: list[Any] = [
        Input("inputs_embeds", embeds, {0: "batch", 1: "sequence"}),
        Input("attention_mask", integers(_BATCH, _PAST + _SEQUENCE), {0: "batch", 1: "total_sequence"}),
        Input("position_ids", integers(_BATCH, _SEQUENCE), {0: "batch", 1: "sequence"}),
        [(past(layer, "key"), past(layer, "value")) for layer in range(layers)],
    ]
    outputs: dict[str, tuple[int | str, ...]] = {"logits": ("batch", 1, spec.vocab_size)}
    if pruning.prunes:
        visual = torch.empty(_BATCH, _SEQUENCE, dtype=torch.bool, device="meta")
        arguments.append(Input("visual_mask", visual, {0: "batch", 1: "sequence"}))
        arguments.append(Input("kept_length", integers(), {}))
        outputs["kept_index"] = ("batch", "kept_sequence")
    if split_cache:
        early_mask = integers(_BATCH, _EARLY_PAST + _SEQUENCE)
        arguments.append(Input("early_attention_mask", early_mask, {0: "batch", 1: "early_total_sequence"}))
    for layer in range(layers):
        length = "early_total_sequence" if layer < early_layers else "present_sequence"
        for part in ("key", "value"):
            outputs[f"present.{layer}.{part}"] = ("batch", spec.kv_heads, length, spec.head_dim)
    return GraphPlan(
        "decoder",
        f"The language model; visual tokens are pruned by '{pruning.method}' after layer {pruning.prune_after}."
        if pruning.prunes
        else "The language model, without pruning.",
        module,
        tuple(arguments),
        outputs,
        parameters,
        DECODER,
        spec.layers,
    )


def _parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """By every name that one has: a tied head bears either."""
    return dict(module.named_parameters(remove_duplicate=False))


class _DecoderForExport(nn.Module):
    """The decoder with its outputs in the order of the graph, without the kept index where nothing is cut."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, *arguments: Any) -> tuple[Tensor, ...]:
        logits, kept_index, present = self.decoder(*arguments)
        kept = (kept_index,) if self.decoder.pruning.prunes else ()
        return logits, *kept, *(tensor for pair in present for tensor in pair)


def trace(plan: GraphPlan, on_layer: Callable[[int, int], None] = lambda done, total: None) -> ir.Model:
    """The graph of a plan, as the exporter names it. Weights are inputs behind the plan's own, without data.

    They bear the names of the module's parameters. Constants computed from the configuration (rotary
    frequencies) hold their values. ``on_layer`` hears how many of the module's layers have been traced; behind the
    last, the exporter rewrites all of it in ONNX's operators, which takes longer still.
    """
    quiet = io.StringIO()
    with (
        canonical_operators(plan.module),
        _told_of_layers(plan.module, on_layer),
        torch.no_grad(),
        # made for static sizes; with symbolic ones, looking up takes longer than computing anew
        torch._dynamo.config.patch(fake_tensor_cache_enabled=False),
        # weights lie on meta, computed constants on the CPU; PyTorch before 2.13 asks which of them wins
        torch._functorch.config.patch(fake_tensor_prefer_device_type="meta"),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(quiet),
        _silent("torch.onnx", "torch.export"),
    ):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            plan.module.eval(),
            _map(plan.arguments, lambda entry: entry.example),
            dynamo=True,
            opset_version=OPSET_VERSION,
            custom_translation_table=translations() | canonical_translations(),
            dynamic_shapes=_dynamic_shapes(plan),
            optimize=False,  # folding constants needs weights, and there are none
            verbose=False,
        )
    assert program is not None
    model: ir.Model = program.model
    graph = model.graph
    graph.name = plan.name
    graph.doc_string = plan.doc
    if len(graph.inputs) != len(planned_inputs(plan)) or len(graph.outputs) != len(plan.outputs):
        raise RuntimeError(f"the exporter gave {plan.name} other inputs or outputs than planned")
    for name in plan.parameters:
        if name in graph.initializers:
            weight = graph.initializers.pop(name)
            weight.const_value = None
            graph.inputs.append(weight)
    return model


@contextlib.contextmanager
def _told_of_layers(module: nn.Module, on_layer: Callable[[int, int], None]) -> Iterator[None]:
    """Call ``on_layer`` behind each of transformers' layers that runs."""
    layers = [layer for layer in module.modules() if isinstance(layer, GradientCheckpointingLayer)]
    done = 0

    def ran(*_: object) -> None:
        nonlocal done
        done += 1
        on_layer(done, len(layers))

    hooks = [layer.register_forward_hook(ran) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def planned_inputs(plan: GraphPlan) -> list[Input]:
    """The plan's inputs in the order in which the exporter numbers them."""
    return _flat(plan.arguments)


def _dynamic_shapes(plan: GraphPlan) -> Any:
    """Dimensions of one name are one to the exporter; sums of others it works out by itself."""
    named = {
        name: torch.export.Dim(name, min=0 if name.endswith("past_sequence") else 1, max=_LONGEST)
        for entry in planned_inputs(plan)
        for name in entry.dims.values()
        if name not in _SUMS
    }

    def dynamic(entry: Input) -> dict[int, Any]:
        return {axis: named.get(name, torch.export.Dim.DYNAMIC) for axis, name in entry.dims.items()}

    shapes = _map(plan.arguments, dynamic)
    # *arguments is one variadic parameter, and its shapes are nested once more
    return (shapes,) if isinstance(plan.module, _DecoderForExport) else shapes


def _map(arguments: Any, function: Any) -> Any:
    if isinstance(arguments, Input):
        return function(arguments)
    return type(arguments)(_map(entry, function) for entry in arguments)


def _flat(arguments: Any) -> list[Input]:
    if isinstance(arguments, Input):
        return [arguments]
    return [entry for part in arguments for entry in _flat(part)]


@contextlib.contextmanager
def _silent(*names: str) -> Any:
    """The exporter logs what it skips (torchvision) at warning level; a user can do nothing with it."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
