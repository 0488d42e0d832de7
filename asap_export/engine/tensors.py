"""What a graph takes and returns, in the manifest's words."""

from collections.abc import Iterable

import onnx
from onnx import TensorProto, ValueInfoProto

from asap_export.bundle import GraphInfo, TensorInfo
from asap_export.bundle.manifest import TensorDtype

__all__ = ["graph_info"]

_DTYPES: dict[int, TensorDtype] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.INT64: "int64",
    TensorProto.BOOL: "bool",
    TensorProto.UINT8: "uint8",
}


def graph_info(model: onnx.ModelProto, file: str) -> GraphInfo:
    """Inputs and outputs of ``model``, which lies in ``file`` of the bundle."""
    return GraphInfo(file, _tensors(model.graph.input), _tensors(model.graph.output))


def _tensors(values: Iterable[ValueInfoProto]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            value.name,
            _DTYPES[value.type.tensor_type.elem_type],
            tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
        )
        for value in values
    )
