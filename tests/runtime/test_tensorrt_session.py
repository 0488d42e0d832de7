"""What of the TensorRT session holds without a GPU: the names it uses, and its own conversions."""

import numpy as np
import pytest

from asap_export.runtime import tensorrt_session
from asap_export.runtime.session import NUMPY_DTYPES
from asap_export.runtime.tensorrt_session import TensorRtSession

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("flavor", ["tensorrt", "tensorrt_rtx"])
def test_the_bindings_have_every_name_the_session_uses(flavor: str) -> None:
    trt = pytest.importorskip(flavor)
    assert trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
    assert trt.TensorIOMode.OUTPUT != trt.TensorIOMode.INPUT
    assert trt.TensorLocation.HOST != trt.TensorLocation.DEVICE
    assert set(tensorrt_session._TORCH_NAMES) <= set(trt.DataType.__members__)
    engine = ("get_tensor_name", "get_tensor_mode", "get_tensor_dtype", "get_tensor_location")
    assert all(hasattr(trt.ICudaEngine, name) for name in (*engine, "create_execution_context"))
    context = (
        "set_input_shape",
        "set_tensor_address",
        "infer_shapes",
        "get_tensor_shape",
        "set_output_allocator",
        "set_optimization_profile_async",
        "execute_async_v3",
    )
    assert all(hasattr(trt.IExecutionContext, name) for name in context)


def test_every_type_of_the_graphs_has_its_torch_type() -> None:
    assert all(hasattr(torch, name) for name in tensorrt_session._TORCH_NAMES.values())


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_arrays_become_tensors_and_come_back(dtype: str) -> None:
    session = object.__new__(TensorRtSession)  # no engine, so no GPU
    session._torch = torch
    array = np.array([[0.5, -2.0], [3.0, 65504.0]], np.float32).astype(NUMPY_DTYPES[dtype])
    tensor = session._tensor(array)
    assert tensor.dtype == {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    np.testing.assert_array_equal(session._array(tensor), array)
    assert session._tensor(np.int64(7)).shape == ()


def test_the_allocator_gives_outputs_the_shape_it_was_told() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    allocator = tensorrt_session._output_allocator(trt, torch)
    allocator.buffers["kept_index"] = torch.arange(8, dtype=torch.int64).view(torch.uint8)
    allocator.notify_shape("kept_index", trt.Dims([2, 3]))
    assert allocator.tensor("kept_index", torch.int64).tolist() == [[0, 1, 2], [3, 4, 5]]
