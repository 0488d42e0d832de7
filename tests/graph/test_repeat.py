"""A graph whose last layers are copies is the one that a trace of all its layers gives."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import nn
from transformers import PreTrainedConfig

import asap_export.graph.trace as tracing
import asap_export.graph.write as writing
from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.graph.naming import name_values
from asap_export.graph.repeat import DECODER, TOWER, layers_to_trace, repeat_last_layer
from asap_export.graph.simplify import simplify
from asap_export.graph.skeleton import weightless_model
from asap_export.progress import no_progress
from asap_export.pruning.config import PruningConfig
from asap_export.spec import ModelSpec

LAYERS = 5
PRUNINGS = {"cut": PruningConfig(prune_after=1), "dense": PruningConfig(method="none")}

numbers: dict[str, int] = {}  # of computations: each is written out once


@pytest.fixture(scope="module")
def model(random_checkpoint) -> tuple[PreTrainedConfig, ModelSpec]:
    checkpoint = open_checkpoint(random_checkpoint)
    config = deepcopy(checkpoint.config)
    config.text_config.num_hidden_layers = config.vision_config.num_hidden_layers = LAYERS
    return config, replace(checkpoint.spec, layers=LAYERS)


def graph_of(name: str, config: PreTrainedConfig, spec: ModelSpec, whole: bool) -> ir.Graph:
    llava = weightless_model(config, torch.float32)
    plan = (
        tracing.vision_plan(llava, spec, torch.float32, whole)
        if name == "vision_encoder"
        else tracing.decoder_plan(llava, spec, torch.float32, PRUNINGS[name], whole)
    )
    assert plan.stack is not None
    traced = tracing.trace(plan)
    name_values(traced, plan)
    simplify(traced)
    assert repeat_last_layer(traced, plan.stack, plan.layers)
    return traced.graph


def computations(graph: ir.Graph) -> dict[str, Any]:
    """By output, all that goes into it: operators with their attributes, down to inputs and constants.

    The length of a dimension may be asked of any input that has it.
    """
    known: dict[ir.Value, Any] = {}

    def of(value: ir.Value | None) -> Any:
        if value is None:
            return None
        if value not in known:
            known[value] = step(value)
        return known[value]

    def step(value: ir.Value) -> Any:
        node = value.producer()
        if node is None:
            constant = value.const_value
            return value.name if constant is None else (str(constant.dtype), constant.numpy().tolist())
        if node.op_type == "Shape":
            (source,) = node.inputs
            assert source is not None and source.shape is not None
            return "Shape", source.shape[node.attributes["start"].as_int()]
        attributes = sorted((name, str(attribute.value)) for name, attribute in node.attributes.items())
        computed = node.domain, node.op_type, attributes, node.outputs.index(value), [*map(of, node.inputs)]
        return numbers.setdefault(repr(computed), len(numbers))

    return {str(value.name): of(value) for value in graph.outputs}


@pytest.mark.parametrize(
    "name", ["cut", *(pytest.param(name, marks=pytest.mark.long) for name in ("vision_encoder", "dense"))]
)
def test_copies_compute_what_a_whole_trace_does(name: str, model) -> None:
    repeated, whole = (graph_of(name, *model, whole=whole) for whole in (False, True))
    assert [value.name for value in repeated.outputs] == [value.name for value in whole.outputs]
    assert {value.name for value in repeated.inputs} == {value.name for value in whole.inputs}
    caches = [
        [value.name for value in graph.inputs if value.name.startswith("past")] for graph in (repeated, whole)
    ]
    assert caches[0] == caches[1] and len(caches[0]) == (0 if name == "vision_encoder" else 2 * LAYERS)
    assert computations(repeated) == computations(whole)
    assert sum(1 for _ in repeated) == sum(1 for _ in whole)


class Layer(nn.Module):
    """What a layer may differ in from the next, beside its weights' values and its number."""

    def __init__(self, number: int, width: int = 8, window: int | None = None, bias: bool = False) -> None:
        super().__init__()
        self.layer_idx, self.sliding_window = number, window
        self.input_layernorm = nn.LayerNorm(8, device="meta")
        self.linear = nn.Linear(8, width, bias=bias, device="meta")


@pytest.mark.parametrize(
    ("changed", "traced"),
    [
        ({}, 4),
        ({"window": 512}, 8),
        ({"width": 16}, 8),
        ({"bias": True}, 8),
    ],
)
def test_layers_that_differ_behind_the_cut_are_all_traced(changed: dict[str, Any], traced: int) -> None:
    layers = nn.ModuleList(Layer(number, **(changed if number == 6 else {})) for number in range(8))
    assert layers_to_trace(DECODER, layers, 2) == traced


@pytest.mark.parametrize(("layers", "traced"), [(3, 3), (4, 4), (5, 4), (32, 4)])
def test_no_more_are_traced_than_there_are(layers: int, traced: int) -> None:
    assert layers_to_trace(DECODER, nn.ModuleList(map(Layer, range(layers))), 2) == traced


def test_a_dense_decoder_is_two_layers_and_copies() -> None:
    assert layers_to_trace(DECODER, nn.ModuleList(map(Layer, range(32)))) == 2


def test_layers_without_the_norm_that_marks_their_beginning_are_all_traced() -> None:
    assert layers_to_trace(TOWER, nn.ModuleList(map(Layer, range(32)))) == 32


def test_where_layers_are_not_computed_alike_all_are_traced(
    random_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, asked = open_checkpoint(random_checkpoint), list[bool]()
    llava = weightless_model(checkpoint.config, torch.float32)

    def make_plan(whole: bool) -> tracing.GraphPlan:
        asked.append(whole)
        return tracing.vision_plan(llava, checkpoint.spec, torch.float32, whole)

    monkeypatch.setattr(writing, "repeat_last_layer", lambda *_: False)
    writer = writing._GraphWriter(llava, checkpoint, PruningConfig(), "fp32", tmp_path, None, no_progress)
    writer.write(make_plan, None)
    assert asked == [False, True] and (tmp_path / "vision_encoder.onnx").is_file()
