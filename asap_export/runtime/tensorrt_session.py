"""Graphs in TensorRT or TensorRT-RTX: an engine of the bundle, with torch tensors as device buffers.

Both flavors have the same Python interface; torch is imported here alone, and only when an engine is opened.
"""

import importlib
from collections.abc import Collection, Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asap_export.bundle import EngineInfo, GraphInfo
from asap_export.errors import UserError
from asap_export.runtime.profiles import choose_profile, longest
from asap_export.runtime.session import NUMPY_DTYPES, Tensor

__all__ = ["TensorRtSession", "new_stream"]

DEVICE = "cuda"  # torch's name of where engines run

# torch's names of TensorRT's types
_TORCH_NAMES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT64": "int64",
    "INT32": "int32",
    "BOOL": "bool",
}


def new_stream() -> Any:
    """A CUDA stream of torch's on the current device."""
    import torch

    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


class TensorRtSession:
    """A ``Session`` on one serialized engine; device tensors are torch tensors on the current CUDA device.

    Each optimization profile has an execution context of its own, made when it is first needed, so that a
    decode step does not switch profiles. A run is over, outputs included, when ``run`` returns. Raises
    UserError where the engine cannot be deserialized, and from ``run`` where no profile takes the inputs.
    """

    def __init__(self, file: Path, info: EngineInfo, graph: GraphInfo, stream: Any) -> None:
        """``graph`` says what the engine takes: the whole graph, or a part of it (``GraphInfo.inputs``).

        All engines of a bundle run in one ``stream``, from ``new_stream``.
        """
        import torch

        self._torch = torch
        self._trt: Any = importlib.import_module(info.flavor)
        self._info, self._graph = info, graph
        self._logger = self._trt.Logger(self._trt.Logger.ERROR)  # must outlive runtime and engine
        self._runtime = self._trt.Runtime(self._logger)
        with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as content:
            self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise UserError(
                f"expected an engine for {info.flavor} {self._trt.__version__} in {file}, found one of "
                f"{info.tensorrt_version} that it cannot load; export again with --engine trt on this machine"
            )
        self._stream = stream
        self._contexts: dict[int, Any] = {}
        self._spare = torch.empty(256, dtype=torch.uint8, device=DEVICE)  # stands in for empty tensors
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        output = self._trt.TensorIOMode.OUTPUT
        self._outputs = [name for name in names if self._engine.get_tensor_mode(name) == output]

    def run(
        self,
        inputs: Mapping[str, Tensor],
        on_host: Collection[str] = (),
        into: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        assert not into, "engines keep their caches where they made them"
        with self._torch.cuda.stream(self._stream):
            placed = {name: self._place(name, value) for name, value in inputs.items()}
            context = self._context(placed)
            for name, tensor in placed.items():
                context.set_input_shape(name, tuple(tensor.shape))
                context.set_tensor_address(name, self._address(tensor))
            missing = context.infer_shapes()
            if missing:
                raise RuntimeError(f"{self._graph.file}: TensorRT misses {', '.join(missing)}")
            outputs, allocator = self._bind_outputs(context)
            if not context.execute_async_v3(self._stream.cuda_stream):
                raise RuntimeError(f"{self._graph.file}: TensorRT failed to run the engine")
            self._stream.synchronize()
            for name in allocator.shapes:
                outputs[name] = allocator.tensor(name, self._dtype(name))
        return {name: self._array(value) if name in on_host else value for name, value in outputs.items()}

    def longest(self, name: str, axis: int) -> int | None:
        return longest(self._info.profiles, name, axis)

    def _place(self, name: str, value: Tensor) -> Any:
        """The input where TensorRT reads it: shape tensors in host memory, all others on the device."""
        tensor = self._tensor(value) if isinstance(value, np.ndarray | np.generic) else value
        return tensor.to(self._device(name)).contiguous()

    def _tensor(self, value: npt.ArrayLike) -> Any:
        """torch does not know ml_dtypes' bfloat16: its bits are handed over as int16, here and back."""
        array = np.array(value, order="C")  # a copy, because torch wants writable memory
        if array.dtype == NUMPY_DTYPES["bf16"]:
            return self._torch.from_numpy(array.view(np.int16)).view(self._torch.bfloat16)
        return self._torch.from_numpy(array)

    def _array(self, tensor: Any) -> npt.NDArray[Any]:
        host = tensor.cpu()
        if host.dtype == self._torch.bfloat16:
            bits: npt.NDArray[Any] = host.view(self._torch.int16).numpy()
            return bits.view(NUMPY_DTYPES["bf16"])
        array: npt.NDArray[Any] = host.numpy()
        return array

    def _device(self, name: str) -> str:
        on_host = self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST
        return "cpu" if on_host else DEVICE

    def _dtype(self, name: str) -> Any:
        return getattr(self._torch, _TORCH_NAMES[self._engine.get_tensor_dtype(name).name])

    def _address(self, tensor: Any) -> int:
        """TensorRT wants an address for a tensor without elements too, and torch gives it none."""
        address: int = tensor.data_ptr() or self._spare.data_ptr()
        return address

    def _context(self, placed: Mapping[str, Any]) -> Any:
        shapes = {name: tuple(tensor.shape) for name, tensor in placed.items()}
        values = {
            name: tuple(tensor.reshape(-1).tolist())
            for name, tensor in placed.items()
            if tensor.device.type == "cpu"
        }
        number = choose_profile(self._graph, self._info.profiles, shapes, values)
        if number not in self._contexts:
            strategy = self._trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
            context = self._engine.create_execution_context(strategy)
            if context is None:
                raise UserError(
                    f"expected device memory for {self._graph.file}, found too little; "
                    "export with smaller limits"
                )
            if not context.set_optimization_profile_async(number, self._stream.cuda_stream):
                raise RuntimeError(f"{self._graph.file}: TensorRT refused optimization profile {number}")
            self._contexts[number] = context
        return self._contexts[number]

    def _bind_outputs(self, context: Any) -> tuple[dict[str, Any], Any]:
        """Buffers for all outputs; where TensorRT cannot tell a shape in advance, it asks the allocator."""
        outputs: dict[str, Any] = {}
        allocator = _output_allocator(self._trt, self._torch)
        for name in self._outputs:
            shape = tuple(context.get_tensor_shape(name))
            if min(shape, default=0) < 0:
                context.set_output_allocator(name, allocator)
                continue
            context.set_output_allocator(name, None)
            outputs[name] = self._torch.empty(shape, dtype=self._dtype(name), device=self._device(name))
            context.set_tensor_address(name, self._address(outputs[name]))
        return outputs, allocator


def _output_allocator(trt: Any, torch: Any) -> Any:
    """An allocator for outputs of unknown shape; its class needs TensorRT's, which is imported late."""

    class OutputAllocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.buffers: dict[str, Any] = {}
            self.shapes: dict[str, tuple[int, ...]] = {}

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            self.buffers[name] = torch.empty(max(size, 1), dtype=torch.uint8, device=DEVICE)
            address: int = self.buffers[name].data_ptr()
            return address

        def reallocate_output_async(
            self, name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shapes[name] = tuple(shape)

        def tensor(self, name: str, dtype: Any) -> Any:
            count = int(np.prod(self.shapes[name]))
            return self.buffers[name][: count * dtype.itemsize].view(dtype).reshape(self.shapes[name])

    return OutputAllocator()
