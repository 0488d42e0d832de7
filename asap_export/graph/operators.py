"""The operator set ``ai.asap``: schemas, portable function bodies, and how a PyTorch operator becomes a node.

The bodies are ONNX text in the folder ``graphs/`` at the top of the repository, which is also their reference
for readers.
"""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

import onnx
import onnx.defs
import onnx.parser
import torch
from onnxscript.values import Op, Opset

import asap_export.pruning.operators  # noqa: F401  # registers torch.ops.asap

__all__ = ["DOMAIN", "OPERATORS", "OPSET_VERSION", "VERSION", "functions", "translations"]

DOMAIN = "ai.asap"
VERSION = 1
OPSET_VERSION = 23  # of the bodies and of the graphs: the first with Attention and RotaryEmbedding

OPERATORS = ("AsapMask", "AsapScore", "AsapTopK", "AsapMerge")
_PARTS = (
    "Positions",
    "Salience",
    "SelectLargest",
)  # that the operators' bodies call; callees come first


@cache
def functions() -> dict[str, onnx.FunctionProto]:
    """Every function of the operator set by name, callees before callers."""
    folder = files("asap_export") / "graphs"
    return {
        name: onnx.parser.parse_function((folder / f"{name}.onnxtxt").read_text("utf-8"))
        for name in (*_PARTS, *OPERATORS)
    }


_Schema = onnx.defs.OpSchema
_FLOAT, _BOOL, _INT = "tensor(float)", "tensor(bool)", "tensor(int64)"
_MODEL_TYPES = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"]


def _schema(
    name: str, inputs: dict[str, str], outputs: dict[str, str], attributes: dict[str, str]
) -> onnx.defs.OpSchema:
    """A schema whose types are either fixed or ``T``, the model's own floating-point type."""
    uses_model_type = "T" in (*inputs.values(), *outputs.values())
    return _Schema(
        name,
        DOMAIN,
        VERSION,
        doc=f"{name} of ASAP visual-token pruning; see graphs/README.md.",
        inputs=[_Schema.FormalParameter(key, kind) for key, kind in inputs.items()],
        outputs=[_Schema.FormalParameter(key, kind) for key, kind in outputs.items()],
        type_constraints=[("T", _MODEL_TYPES, "The model's type; the arithmetic is float32.")]
        if uses_model_type
        else [],
        attributes=[
            _Schema.Attribute(key, _Schema.AttrType.FLOAT, text, required=True)
            for key, text in attributes.items()
        ],
    )


def _schemas() -> list[onnx.defs.OpSchema]:
    scale = {"scale": "Factor of the logits, usually 1/√(head size)."}
    return [
        _schema(
            "AsapMask",
            {"query": "T", "key": "T", "visual_mask": _BOOL, "attention_mask": _BOOL},
            {"bias": _FLOAT, "mass": _FLOAT, "salience": _FLOAT},
            {"lambda_max": "Largest weight of a later visual token, in (0, 1]."} | scale,
        ),
        _schema(
            "AsapScore",
            {"query": "T", "key": "T", "bias": _FLOAT, "row_weight": _FLOAT},
            {"score": _FLOAT},
            scale,
        ),
        _schema(
            "AsapTopK",
            {"score": _FLOAT, "visual_mask": _BOOL, "attention_mask": _BOOL, "kept_length": _INT},
            {"index": _INT},
            {},
        ),
        _schema(
            "AsapMerge",
            {"hidden": "T", "index": _INT, "visual_mask": _BOOL, "salience": _FLOAT, "mass": _FLOAT},
            {"merged": "T", "kept_index": _INT, "absorbed": _BOOL},
            {"threshold": "Cosine similarity above which a token is absorbed."},
        ),
    ]


@cache
def _opset() -> Opset:
    for schema in _schemas():
        onnx.defs.register_schema(schema)
    return Opset(DOMAIN, VERSION)


@cache
def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For ``torch.onnx.export(custom_translation_table=...)``: every PyTorch operator and its node."""
    opset = _opset()
    node = {name: Op(opset, name, onnx.defs.get_schema(name, VERSION, DOMAIN)) for name in OPERATORS}

    def mask(
        query: Any, key: Any, visual_mask: Any, attention_mask: Any, lambda_max: float, scale: float
    ) -> Any:
        return node["AsapMask"](query, key, visual_mask, attention_mask, lambda_max=lambda_max, scale=scale)

    def score(query: Any, key: Any, bias: Any, row_weight: Any, scale: float) -> Any:
        return node["AsapScore"](query, key, bias, row_weight, scale=scale)

    def topk(score: Any, visual_mask: Any, attention_mask: Any, kept_length: Any) -> Any:
        return node["AsapTopK"](score, visual_mask, attention_mask, kept_length)

    def merge(hidden: Any, index: Any, visual_mask: Any, salience: Any, mass: Any, threshold: float) -> Any:
        return node["AsapMerge"](hidden, index, visual_mask, salience, mass, threshold=threshold)

    return {
        torch.ops.asap.mask.default: mask,
        torch.ops.asap.score.default: score,
        torch.ops.asap.topk.default: topk,
        torch.ops.asap.merge.default: merge,
    }
