"""Graphs in ONNX Runtime, on its CPU or CUDA execution provider."""

import contextlib
import ctypes
import io
import re
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from asap_export.errors import UserError
from asap_export.runtime.run_memory import room_to_open
from asap_export.runtime.session import NUMPY_DTYPES, Tensor

__all__ = ["EXECUTION_PROVIDERS", "OnnxRuntimeSession"]

EXECUTION_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

# Scores are float32, and TF32's ten bits of mantissa would not be.
_OPTIONS: dict[str, dict[str, str]] = {"cpu": {}, "cuda": {"use_tf32": "0"}}
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_AS_REQUESTED = 1  # of the arena's ways to grow; 0 doubles it
_FATAL = 4  # of ONNX Runtime's severities: what it logs as an error it throws, too, and then it is told once
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")  # before the words of an exception
_ONNX_BFLOAT16 = 16  # TensorProto.BFLOAT16, which numpy has no name for


class OnnxRuntimeSession:
    """A ``Session`` on one ONNX graph; device tensors are OrtValues.

    ``graph`` is a file, or a serialized model whose weights lie in the folder ``weights``; ``provider`` "cpu" or
    "cuda"; ``threads`` those of one operator, by default one per core. ``mapped`` leaves weights in their file
    until a run needs them, and as wide as they are: without graph optimisations, which would keep float32 copies.
    Without ``fold_constants`` a session opens faster and with a lower peak, because no weight is transposed
    beforehand, but its decode steps are slower. ``profile``, the beginning of a file's name, turns ONNX Runtime's
    profiler on until ``end_profiling``. Raises UserError where this ONNX Runtime lacks the provider or cannot load
    the graph.
    """

    def __init__(
        self,
        graph: Path | bytes,
        provider: str = "cpu",
        threads: int | None = None,
        mapped: bool = False,
        *,
        weights: Path | None = None,
        fold_constants: bool = True,
        profile: Path | None = None,
    ) -> None:
        _require_provider(provider)
        if threads is not None and threads < 1:
            raise UserError(
                f"expected --threads of at least 1, found {threads}; leave it out for one per core"
            )
        options = _session_options(provider, threads, mapped)
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        if weights is not None:
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(weights))
        place = weights if isinstance(graph, bytes) else graph
        if provider == "cpu" and not room_to_open():
            raise _no_memory_to_open(place)
        wanted = EXECUTION_PROVIDERS[provider]
        missing = _load_cuda() if provider == "cuda" else ""
        disabled = [] if fold_constants else ["ConstantFolding"]
        try:
            self._session = ort.InferenceSession(
                graph, options, providers=[(wanted, _OPTIONS[provider])], disabled_optimizers=disabled
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            if _wants_memory(error):
                raise _no_memory_to_open(place) from error
            reason = _CODE.sub("", " ".join(str(error).split()))
            raise UserError(
                f"expected a graph for ONNX Runtime {ort.__version__} in {place}, found: {reason}"
            ) from error
        if self._session.get_providers()[0] != wanted:  # it falls back to the CPU where CUDA's libraries fail
            raise UserError(
                f"expected ONNX Runtime's {wanted} to start, found that it cannot{missing}; "
                "pip install 'onnxruntime-gpu[cuda,cudnn]' or use --provider cpu"
            )
        self._device = provider
        self._name = graph.name if isinstance(graph, Path) else "a graph"
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(
        self,
        inputs: Mapping[str, Tensor],
        on_host: Collection[str] = (),
        into: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        given = into or {}
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, _ort_value(value))
        for name in self._outputs:
            if name in given:
                binding.bind_ortvalue_output(name, _ort_value(given[name]))
            else:
                binding.bind_output(name, "cpu" if name in on_host else self._device)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            if not _wants_memory(error):
                raise
            raise UserError(
                f"expected memory for a run of {self._name}, found too little; shorten the request, use a smaller "
                "image, or export with --quantize int4"
            ) from error
        outputs = dict(zip(self._outputs, binding.get_outputs(), strict=True))
        return {name: _array(value) if name in on_host else value for name, value in outputs.items()}

    def longest(self, name: str, axis: int) -> int | None:
        return None

    def end_profiling(self) -> Path:
        """The file with the events of all runs of a session that was opened with ``profile``."""
        return Path(self._session.end_profiling())


@cache
def _load_cuda() -> str:
    """Load CUDA's libraries from NVIDIA's Python packages, where the loader does not look; says what failed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # that is where ONNX Runtime tells it
        ort.preload_dlls()
    failed = [line for line in said.getvalue().splitlines() if line.startswith("Failed to load")]
    return f": {failed[0]}" if failed else ""


def _session_options(provider: str, threads: int | None, mapped: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    if mapped:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_cpu_mem_arena = False  # it would keep what one layer needed for the next
    elif provider == "cpu":
        _share_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
    # Otherwise this session's threads wait busily for a while, on the cores that the next graph needs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Blocked DequantizeLinear and MatMul are fused; by default with activations rounded to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if not _has_vnni():
        options.add_session_config_entry("session.x64quantprecision", "1")
    if (
        provider == "cpu"
    ):  # functions are inlined where they run: in graphs with many, opening is a fifth faster
        options.add_session_config_entry("session.disable_aot_function_inlining", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


@cache
def _has_vnni() -> bool:
    """Whether an x86 processor adds products of bytes in 32 bits.

    Without VNNI ONNX Runtime's fast kernels add pairs in 16, which overflow; it has slower ones that do not.
    """
    processor = Path("/proc/cpuinfo")
    return processor.exists() and "vnni" in processor.read_text()


@cache
def _share_memory() -> None:
    """One memory arena for all sessions of the process, which grows by what is asked for.

    By default each session has its own, and doubles it when it grows: a prompt then holds up to twice its need.
    """
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(place, ort.OrtArenaCfg({"arena_extend_strategy": _AS_REQUESTED}))


def _no_memory_to_open(place: Path | None) -> UserError:
    return UserError(
        f"expected memory to open {place}, found too little; use a larger machine, or export with --quantize int4"
    )


def _wants_memory(error: Exception) -> bool:
    """Allocators, operator new and the start of threads each have their own words."""
    signs = ("Failed to allocate", "bad_alloc", "bad allocation", "out of memory", "Cannot allocate memory")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


def _require_provider(provider: str) -> None:
    available = ort.get_available_providers()
    if EXECUTION_PROVIDERS[provider] not in available:
        names = [name for name, full in EXECUTION_PROVIDERS.items() if full in available]
        raise UserError(
            f"expected ONNX Runtime with {EXECUTION_PROVIDERS[provider]}, found only {', '.join(names)}; "
            f"install it ({_how_to_install()}) or use --provider {names[0]}"
        )


def _how_to_install() -> str:
    """The package onnxruntime has files of the same names, and those of whichever came last are there."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("onnxruntime-gpu")
    except PackageNotFoundError:
        return 'pip install "asap-export[gpu]"'
    return "pip uninstall both onnxruntime and onnxruntime-gpu, then pip install onnxruntime-gpu: they share files"


def _ort_value(value: Tensor) -> ort.OrtValue:
    """Arrays are lent to ONNX Runtime without a copy; the OrtValue keeps them alive."""
    if not isinstance(value, np.ndarray | np.generic):
        return value
    array = np.asarray(value, order="C")
    if array.dtype == NUMPY_DTYPES["bf16"]:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _ONNX_BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _array(value: ort.OrtValue) -> npt.NDArray[Any]:
    """An OrtValue in host memory as an array; OrtValue.numpy() refuses bfloat16, so its bytes are copied."""
    if value.element_type() != _ONNX_BFLOAT16:
        array: npt.NDArray[Any] = value.numpy()
        return array
    content = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(content, NUMPY_DTYPES["bf16"]).reshape(value.shape()).copy()
