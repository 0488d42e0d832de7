"""What of the TensorRT session holds without a GPU: its own conversions."""

import numpy as np
import pytest

from asap_export.runtime import tensorrt_session
from asap_export.runtime.session import NUMPY_DTYPES
from asap_export.runtime.tensorrt_session import TensorRtSession

torch = pytest.importorskip("torch")


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
