"""TensorRT for machines without a GPU: what the runtime uses of its Python interface, on ONNX Runtime.

``build`` writes an engine that holds the graph and its profiles; ``StandInTensorRt`` runs it. As with TensorRT,
work given to a stream is done when somebody waits for that stream, not before: what the caller frees or changes
until then is what the work finds. It is stricter where TensorRT would go wrong in silence: shapes outside of the
profile, missing addresses and strange streams fail.
"""

import ctypes
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from asap_export.bundle import Profile
from asap_export.engine.compile import Job
from asap_export.runtime import providers, tensorrt_session

VERSION = "stand-in"
_TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
}
_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "BOOL": np.bool_}

TensorIOMode = Enum("TensorIOMode", ["INPUT", "OUTPUT"])
TensorLocation = Enum("TensorLocation", ["HOST", "DEVICE"])
ContextMemory = Enum("ContextMemory", ["ON_PROFILE_CHANGE"])


def build(job: Job, *_: Any) -> str:
    """In the place of ``build_in_child``: graph and weights in one file, behind a line with the profiles."""
    model = onnx.load(job.graph)
    Path(job.engine).parent.mkdir(exist_ok=True)
    with Path(job.engine).open("wb") as file:
        file.write(msgspec.json.encode(job.profiles) + b"\n" + model.SerializeToString())
    return VERSION


class Stream:
    """Work that waits."""

    def __init__(self) -> None:
        self.cuda_stream = id(self)
        self.work: list[Callable[[], None]] = []

    def synchronize(self) -> None:
        while self.work:
            self.work.pop(0)()


class StandInTensorRt:
    """The module ``tensorrt_rtx``, and what of CUDA PyTorch has; ``profiles`` lists the profiles that ran.

    ``hidden``: outputs whose shapes it learns in the run alone; ``contexts``: how many there is memory for.
    """

    def __init__(self, hidden: tuple[str, ...] = (), contexts: int = 1000) -> None:
        self.hidden, self.contexts = hidden, contexts
        self.profiles: list[str] = []
        self.stream = Stream()
        self.module = SimpleNamespace(
            __version__=VERSION, Logger=_Logger, Runtime=self._runtime, TensorIOMode=TensorIOMode,
            TensorLocation=TensorLocation, ExecutionContextAllocationStrategy=ContextMemory,
            IOutputAllocator=type("IOutputAllocator", (), {}),
        )  # fmt: skip

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the runtime find it, and a device of compute capability 12.0 whose memory is the host's."""
        import torch

        @contextmanager
        def current(stream: Any) -> Iterator[None]:
            assert isinstance(stream, Stream), f"a stream of CUDA's, not {stream}"
            yield

        monkeypatch.setattr(torch.cuda, "stream", current)
        monkeypatch.setattr(torch.cuda, "Stream", lambda: self.stream)
        monkeypatch.setattr(tensorrt_session, "DEVICE", "cpu")
        monkeypatch.setattr(
            tensorrt_session, "importlib", SimpleNamespace(import_module=lambda _: self.module)
        )
        monkeypatch.setattr(providers, "compute_capabilities", lambda: ("12.0",))

    def _runtime(self, logger: object) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=self._deserialized)

    def _deserialized(self, content: Any) -> "_Engine | None":
        profiles, _, model = bytes(content).partition(b"\n")
        return (
            _Engine(self, msgspec.json.decode(profiles, type=tuple[Profile, ...]), model) if model else None
        )


class _Logger:
    ERROR = 2

    def __init__(self, severity: int) -> None: ...


class _Engine:
    def __init__(self, trt: StandInTensorRt, profiles: tuple[Profile, ...], content: bytes) -> None:
        self.trt, self.profiles = trt, profiles
        graph = onnx.load(io.BytesIO(content)).graph
        options = ort.SessionOptions()
        options.log_severity_level = 4
        self.session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        self.types = {
            value.name: _TYPES[value.type.tensor_type.elem_type] for value in (*graph.input, *graph.output)
        }
        self.names = [*self.inputs, *self.outputs]
        self.num_io_tensors = len(self.names)
        self.get_tensor_name = self.names.__getitem__

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.HOST if name in self.profiles[0].values else TensorLocation.DEVICE

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.types[name])

    def create_execution_context(self, strategy: object) -> "_Context | None":
        self.trt.contexts -= 1
        return _Context(self) if self.trt.contexts >= 0 else None


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.allocators: dict[str, Any] = {}
        self.output_shapes: dict[str, tuple[int, ...]] = {}

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        assert stream == self.engine.trt.stream.cuda_stream
        self.profile = self.engine.profiles[number]
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if name in self.profile.shapes:
            allowed = self.profile.shapes[name]
            assert all(
                low <= size <= high for low, size, high in zip(allowed.min, shape, allowed.max, strict=True)
            )
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address, f"{name} at no place"
        self.addresses[name] = address
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self.allocators[name] = allocator
        return True

    def infer_shapes(self) -> list[str]:
        missing = [
            name for name in self.engine.inputs if name not in self.shapes or name not in self.addresses
        ]
        for name, allowed in () if missing else self.profile.values.items():
            (value,) = self._input(name).reshape(-1)
            assert allowed.min[0] <= value <= allowed.max[0], (name, value)
        if not missing:
            self.output_shapes = {name: array.shape for name, array in self._computed().items()}
        return missing

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self.output_shapes[name]
        return (-1,) * len(shape) if name in self.engine.trt.hidden else shape

    def execute_async_v3(self, stream: int) -> bool:
        trt = self.engine.trt
        assert stream == trt.stream.cuda_stream
        trt.profiles.append(self.profile.name)
        trt.stream.work.append(self._work)
        return True

    def _work(self) -> None:
        for name, array in self._computed().items():
            address, allocator = self.addresses.get(name), self.allocators.get(name)
            if allocator is not None:
                address = allocator.reallocate_output(name, 0, array.nbytes, 256)
                allocator.notify_shape(name, array.shape)
            assert address is not None
            ctypes.memmove(address, np.ascontiguousarray(array).ctypes.data, array.nbytes)

    def _computed(self) -> dict[str, np.ndarray]:
        given = {name: self._input(name) for name in self.engine.inputs}
        return dict(
            zip(self.engine.outputs, self.engine.session.run(self.engine.outputs, given), strict=True)
        )

    def _input(self, name: str) -> np.ndarray:
        dtype = np.dtype(_NUMPY[self.engine.types[name]])
        size = int(np.prod(self.shapes[name])) * dtype.itemsize
        return np.frombuffer(ctypes.string_at(self.addresses[name], size), dtype).reshape(self.shapes[name])
