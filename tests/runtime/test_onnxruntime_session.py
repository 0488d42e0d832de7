"""One graph in ONNX Runtime, with values that stay on the device."""

import statistics
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from asap_export.errors import UserError
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession, _load_cuda


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """y = x + x in float32, and the same as bfloat16."""
    graph = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 23]>
        doubling (float[n, 2] x) => (float[n, 2] y, bfloat16[n, 2] z) { y = Add(x, x)  z = Cast<to=16>(y) }"""
    )
    onnx.save(graph, tmp_path / "doubling.onnx")
    return tmp_path / "doubling.onnx"


def test_outputs_feed_the_next_run_without_passing_the_host(doubling: Path) -> None:
    session = OnnxRuntimeSession(doubling, threads=1)
    first = session.run({"x": np.ones((3, 2), np.float32)})
    assert not isinstance(first["y"], np.ndarray)
    second = session.run({"x": first["y"]}, on_host=("y",))
    np.testing.assert_array_equal(second["y"], np.full((3, 2), 4, np.float32))
    assert session.longest("x", 0) is None


def test_bfloat16_comes_to_the_host_and_goes_back(doubling: Path, tmp_path: Path) -> None:
    values = OnnxRuntimeSession(doubling).run({"x": np.array([[0.5, 3.0]], np.float32)}, on_host=("z",))
    assert values["z"].dtype == ml_dtypes.bfloat16
    assert values["z"].astype(np.float32).tolist() == [[1.0, 6.0]]

    widening = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 23]>
        widening (bfloat16[n, 2] z) => (float[n, 2] y) { y = Cast<to=1>(z) }"""
    )
    assert widening.graph.input[0].type.tensor_type.elem_type == TensorProto.BFLOAT16
    onnx.save(widening, tmp_path / "widening.onnx")
    back = OnnxRuntimeSession(tmp_path / "widening.onnx").run({"z": values["z"]}, on_host=("y",))
    assert back["y"].tolist() == [[1.0, 6.0]]


def test_empty_and_strided_arrays_are_inputs_too(doubling: Path) -> None:
    session = OnnxRuntimeSession(doubling)
    assert session.run({"x": np.zeros((0, 2), np.float32)}, on_host=("y",))["y"].shape == (0, 2)
    strided = np.arange(8, dtype=np.float32).reshape(2, 4).T
    np.testing.assert_array_equal(session.run({"x": strided}, on_host=("y",))["y"], strided * 2)


def test_threads_rest_when_a_run_is_over(tmp_path: Path) -> None:
    """Busy waiting would take the next graph's cores: a bundle has several sessions, and they run in turns."""
    graph = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 23]>
        product (float[n, n] x) => (float[n, n] y) { y = MatMul(x, x) }"""
    )
    onnx.save(graph, tmp_path / "product.onnx")
    session = OnnxRuntimeSession(tmp_path / "product.onnx", threads=2)
    busy = []
    for _ in range(9):
        session.run({"x": np.ones((512, 512), np.float32)})
        begin = time.process_time()  # of all threads, and of this process alone
        time.sleep(0.05)
        busy.append(time.process_time() - begin)
    assert statistics.median(busy) < 0.005


def test_a_missing_provider_is_refused_with_those_there_are(
    doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match=r"CUDAExecutionProvider, found only cpu; .*or use provider cpu"):
        OnnxRuntimeSession(doubling, "cuda")


def test_where_the_cpu_package_has_replaced_the_gpu_s_files_that_is_said(
    doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.31.1")
    with pytest.raises(UserError, match="then pip install onnxruntime-gpu: they share files"):
        OnnxRuntimeSession(doubling, "cuda")


@pytest.mark.parametrize("missing", ["libcublasLt.so.13", None])
def test_a_provider_that_does_not_start_is_refused_with_the_library_it_misses(
    doubling: Path, monkeypatch: pytest.MonkeyPatch, missing: str | None
) -> None:
    """ONNX Runtime itself would go on with the CPU."""
    told = f"Failed to load {missing}: cannot open shared object file\n" if missing else ""
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print(told, end=""))
    opened = onnxruntime.InferenceSession
    on_cpu = {"providers": ["CPUExecutionProvider"]}
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *args, **more: opened(*args, **(more | on_cpu))
    )
    _load_cuda.cache_clear()
    reason = f"cannot: {told.strip()}; pip install" if missing else "cannot; pip install"
    with pytest.raises(UserError, match=reason):
        OnnxRuntimeSession(doubling, "cuda")
    _load_cuda.cache_clear()


def test_what_onnx_runtime_cannot_load_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"expected a graph for ONNX Runtime .*broken.onnx") as refusal:
        OnnxRuntimeSession(tmp_path / "broken.onnx")
    assert "\n" not in str(refusal.value)


def test_a_graph_that_memory_cannot_hold_is_refused_before_it_is_opened(
    doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asap_export.runtime.run_memory.available_memory", lambda: 10_000_000)
    with pytest.raises(
        UserError, match=r"^expected memory to open .*, found too little; use a larger machine"
    ):
        OnnxRuntimeSession(doubling)


def test_threads_are_counted_from_one(doubling: Path) -> None:
    with pytest.raises(UserError, match=r"expected threads of at least 1, found 0"):
        OnnxRuntimeSession(doubling, threads=0)


def test_a_run_that_memory_cannot_hold_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 23]>
        huge (int64[1] shape) => (float[n] zeros) { zeros = ConstantOfShape(shape) }"""
    )
    onnx.save(graph, tmp_path / "huge.onnx")
    session = OnnxRuntimeSession(tmp_path / "huge.onnx", threads=1)
    with pytest.raises(
        UserError, match=r"^expected memory for a run of huge\.onnx, found too little; shorten the"
    ):
        session.run({"shape": np.array([1 << 48])})
    assert capfd.readouterr().err == ""  # nothing is logged beside the exception
