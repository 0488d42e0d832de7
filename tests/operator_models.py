"""ONNX models of single ``ai.asap`` functions, with the bodies that the exporter attaches."""

from functools import cache

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from asap_export.graph.operators import DOMAIN, OPSET_VERSION, VERSION, functions

FLOAT, BOOL, INT = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64

# name: inputs and outputs with their type (None: the model's own) and dimensions
SIGNATURES = {
    "AsapMask": (
        {
            "query": (None, ["b", "h", "t", "d"]),
            "key": (None, ["b", "g", "s", "d"]),
            "visual_mask": (BOOL, ["b", "t"]),
            "attention_mask": (BOOL, ["b", "s"]),
        },
        {"bias": (FLOAT, ["b", 1, "t", "s"]), "mass": (FLOAT, ["b", "t"]), "salience": (FLOAT, ["b", "t"])},
    ),
    "AsapScore": (
        {
            "query": (None, ["b", "h", "r", "d"]),
            "key": (None, ["b", "g", "s", "d"]),
            "bias": (FLOAT, ["b", 1, "r", "s"]),
            "row_weight": (FLOAT, ["b", "r"]),
        },
        {"score": (FLOAT, ["b", "s"])},
    ),
    "AsapTopK": (
        {
            "score": (FLOAT, ["b", "t"]),
            "visual_mask": (BOOL, ["b", "t"]),
            "attention_mask": (BOOL, ["b", "t"]),
            "kept_length": (INT, []),
        },
        {"index": (INT, ["b", "k"])},
    ),
    "AsapMerge": (
        {
            "hidden": (None, ["b", "t", "w"]),
            "index": (INT, ["b", "k"]),
            "visual_mask": (BOOL, ["b", "t"]),
            "salience": (FLOAT, ["b", "t"]),
            "mass": (FLOAT, ["b", "t"]),
        },
        {"merged": (None, ["b", "k", "w"]), "kept_index": (INT, ["b", "k"]), "absorbed": (BOOL, ["b", "k"])},
    ),
    "SelectLargest": (
        {"value": (FLOAT, ["b", "t"]), "candidate": (BOOL, ["b", "t"]), "count": (INT, ["b", 1])},
        {"chosen": (BOOL, ["b", "t"])},
    ),
    "Positions": (
        {"chosen": (BOOL, ["b", "t"]), "length": (INT, [1])},
        {"index": (INT, ["b", "k"])},
    ),
}


def operator_model(name: str, model_type: int = FLOAT, **attributes: float) -> onnx.ModelProto:
    """A model of one node; passes onnx's full check."""
    inputs, outputs = (
        [helper.make_tensor_value_info(key, kind or model_type, dims) for key, (kind, dims) in part.items()]
        for part in SIGNATURES[name]
    )
    names = [value.name for value in inputs], [value.name for value in outputs]
    node = helper.make_node(name, *names, domain=DOMAIN, **attributes)
    model = helper.make_model(
        helper.make_graph([node], name, inputs, outputs),
        functions=list(functions().values()),
        opset_imports=[helper.make_opsetid("", OPSET_VERSION), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=11,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


@cache
def _session(
    name: str, model_type: int, attributes: tuple[tuple[str, float], ...]
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = operator_model(name, model_type, **dict(attributes))
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


@cache
def _evaluator(name: str, model_type: int, attributes: tuple[tuple[str, float], ...]) -> ReferenceEvaluator:
    return ReferenceEvaluator(operator_model(name, model_type, **dict(attributes)))


RUNTIMES = {"onnxruntime": _session, "onnx reference": _evaluator}


def run_operator(
    runtime: str, name: str, inputs: dict[str, np.ndarray], model_type: int = FLOAT, **attributes: float
) -> dict[str, np.ndarray]:
    """The operator's outputs by name, from its portable body."""
    runner = RUNTIMES[runtime](name, model_type, tuple(sorted(attributes.items())))
    return dict(zip(SIGNATURES[name][1], runner.run(None, inputs), strict=True))
