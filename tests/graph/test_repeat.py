"""A decoder whose last layers are copies is the one that a trace of all its layers gives."""

from copy import deepcopy
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import nn
from transformers import PreTrainedConfig

import asap_export.graph.trace as tracing
from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.graph.naming import name_values
from asap_export.graph.repeat import layers_to_trace, repeat_last_layer
from asap_export.graph.simplify import simplify
from asap_export.graph.skeleton import weightless_model
from asap_export.pruning.config import PruningConfig
from asap_export.spec import ModelSpec

LAYERS = 5
EARLY_CUT = PruningConfig(prune_after=1)

numbers: dict[str, int] = {}  # of computations: each is written out once


@pytest.fixture(scope="module")
def model(random_checkpoint) -> tuple[PreTrainedConfig, ModelSpec]:
    checkpoint = open_checkpoint(random_checkpoint)
    config = deepcopy(checkpoint.config)
    config.text_config.num_hidden_layers = LAYERS
    return config, checkpoint.spec


def decoder(config: PreTrainedConfig, spec: ModelSpec) -> ir.Model:
    llava = weightless_model(config, torch.float32)
    plan = tracing.decoder_plan(llava, spec, torch.float32, EARLY_CUT)
    traced = tracing.trace(plan)
    name_values(traced, plan)
    simplify(traced)
    repeat_last_layer(traced, LAYERS)
    return traced


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


def test_copies_compute_what_a_whole_trace_does(model, monkeypatch) -> None:
    repeated = decoder(*model)
    monkeypatch.setattr(tracing, "layers_to_trace", lambda layers, _: len(layers))
    whole = decoder(*model)
    assert [value.name for value in repeated.graph.outputs] == [value.name for value in whole.graph.outputs]
    assert {value.name for value in repeated.graph.inputs} == {value.name for value in whole.graph.inputs}
    caches = [
        [value.name for value in decoder.graph.inputs if value.name.startswith("past")]
        for decoder in (repeated, whole)
    ]
    assert caches[0] == caches[1] and len(caches[0]) == 2 * LAYERS
    assert computations(repeated.graph) == computations(whole.graph)
    assert sum(1 for _ in repeated.graph) == sum(1 for _ in whole.graph)


class Layer(nn.Module):
    """What a layer may differ in from the next, beside its weights' values and its number."""

    def __init__(self, number: int, width: int = 8, window: int | None = None, bias: bool = False) -> None:
        super().__init__()
        self.layer_idx, self.sliding_window = number, window
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
    assert layers_to_trace(layers, PruningConfig(prune_after=2)) == traced


@pytest.mark.parametrize(("layers", "traced"), [(3, 3), (4, 4), (5, 4), (32, 4)])
def test_no_more_are_traced_than_there_are(layers: int, traced: int) -> None:
    assert layers_to_trace(nn.ModuleList(map(Layer, range(layers))), PruningConfig(prune_after=2)) == traced


def test_a_dense_decoder_is_two_layers_and_copies() -> None:
    assert layers_to_trace(nn.ModuleList(map(Layer, range(32))), PruningConfig(method="none")) == 2
