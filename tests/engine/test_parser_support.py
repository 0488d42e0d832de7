"""Every operator of our graphs, with its types and attributes, is among what TensorRT 10.15's parser promises.

TensorRT itself is installed on few machines; TensorRT-RTX's parser is asked directly.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import pytest
from onnx import TensorProto, helper, inliner, numpy_helper, shape_inference

from asap_export.bundle import Bundle
from asap_export.bundle.manifest import EngineGraph

OPERATORS: dict[str, list[str]] = json.loads(Path(__file__).with_name("onnx_parser.json").read_text())[
    "operators"
]
BUNDLES = ["fp16_bundle", "untrimmed_bundle", "dense_bundle", "llava_1_5_bundle"]
TYPES = {
    TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16", TensorProto.BOOL: "bool",
    TensorProto.INT32: "int32", TensorProto.INT64: "int64", TensorProto.INT8: "int8", TensorProto.INT4: "int4",
}  # fmt: skip
DATA = {"Where": 1, "Loop": 2}  # the first input that is data; others take a condition there
MOST_CHOSEN = 3840


class Place(NamedTuple):
    """A node, what is known of its inputs, and the values of those that are constants."""

    node: onnx.NodeProto
    types: list[str | None]
    ranks: list[int | None]
    constants: list[Any]

    def attribute(self, name: str, default: object = None) -> Any:
        return next(
            (helper.get_attribute_value(each) for each in self.node.attribute if each.name == name), default
        )


def places(graph: onnx.GraphProto, outer: dict[str, Any] | None = None) -> Iterator[Place]:
    known = dict(outer or {})  # name -> type, rank, value
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        rank = len(tensor.shape.dim) if tensor.HasField("shape") else None
        known[value.name] = TYPES.get(tensor.elem_type), rank, None
    for name, tensor in constants(graph):
        stored = tensor.data_location == TensorProto.EXTERNAL
        value = True if stored else numpy_helper.to_array(tensor)
        known[name] = TYPES.get(tensor.data_type), len(tensor.dims), value
    for node in graph.node:
        given = [known.get(name, (None, None, None)) for name in node.input]
        yield Place(
            node, [type_ for type_, _, _ in given], [rank for _, rank, _ in given], [v for _, _, v in given]
        )
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from places(attribute.g, known)


def constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            yield node.output[0], node.attribute[0].t


def breaches(place: Place) -> Iterator[str]:
    """What the parser's notes on an operator forbid."""
    match place.node.op_type:
        case "Attention":
            if set(place.ranks[:4]) - {4}:
                yield f"inputs of ranks {place.ranks}"
            if any(place.node.input[4:]) or any(place.node.output[1:]):
                yield "a past, a present or the product of queries and keys"
            if place.attribute("softcap") or place.attribute("qk_matmul_output_mode"):
                yield "softcap or qk_matmul_output_mode"
        case "CumSum" | "ReduceL2" | "ReduceMax" | "ReduceMin" | "ReduceSum" | "Squeeze" | "Unsqueeze":
            if len(place.node.input) > 1 and place.constants[1] is None:
                yield "an axis that is no constant"
        case "LayerNormalization" if any(place.node.output[1:]):
            yield "a second output"
        case "RotaryEmbedding" if any(place.node.input[3:]) and place.types[3] != "int64":
            yield f"position_ids of {place.types[3]}"
        case "ScatterElements" if place.attribute("reduction", b"none") != b"none":
            yield f"a reduction, {place.attribute('reduction')}"
        case "TopK":
            most = place.constants[1]
            if place.attribute("sorted", 1) != 1 or (most is not None and int(most[0]) >= MOST_CHOSEN):
                yield "unsorted, or too many"
        case "Loop" if len(place.node.output) > len(place.node.input) - 2:
            yield "scan outputs"


@pytest.fixture(params=BUNDLES)
def graphs(request) -> dict[str, onnx.ModelProto]:
    """The graphs that engines are built of, functions in their places, with types."""
    bundle = Bundle.open(request.getfixturevalue(request.param))
    found = {}
    for name in EngineGraph.__args__:
        model = inliner.inline_local_functions(onnx.load(bundle.graph_path(name), load_external_data=False))
        found[name] = shape_inference.infer_shapes(model, data_prop=True)
    return found


def test_every_operator_its_types_and_attributes_are_taken(graphs) -> None:
    wrong = []
    for name, model in graphs.items():
        for place in places(model.graph):
            operator = place.node.op_type
            data = place.types[DATA.get(operator, 0) :][:1]
            if operator not in OPERATORS:
                wrong.append(f"{name}: {operator}")
            elif set(filter(None, data)) - set(OPERATORS[operator]):
                wrong.append(f"{name}: {operator} of {data[0]}")
            wrong += [f"{name}: {operator} with {said}" for said in breaches(place)]
    assert sorted(set(wrong)) == []


def test_tensorrt_rtx_takes_every_operator(graphs) -> None:
    trt: Any = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    logger = trt.Logger(trt.Logger.ERROR)
    parser = trt.OnnxParser(trt.Builder(logger).create_network(0), logger)
    used = {place.node.op_type for model in graphs.values() for place in places(model.graph)}
    assert {operator for operator in used if not parser.supports_operator(operator)} == set()
