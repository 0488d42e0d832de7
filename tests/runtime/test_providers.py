"""Where a bundle can run, decided without running it."""

from dataclasses import replace

import onnxruntime
import pytest
from bundle_cases import example_manifest

from asap_export.bundle import Bundle, EngineInfo, EnginePart, FileInfo
from asap_export.errors import UserError
from asap_export.runtime import providers
from asap_export.runtime.providers import choose_provider, engine_flavor
from asap_export.spec import Quantization


def bundle(tmp_path, *flavors: str, capabilities: tuple[str, ...] = ("8.6", "12.0"), dtype="fp16") -> Bundle:
    engines = tuple(
        EngineInfo(graph, f"engines/{graph}.{flavor}.engine", flavor, "1.0", capabilities, ())
        for graph in ("vision_encoder", "embed_tokens", "decoder")
        for flavor in flavors
    )
    return Bundle(tmp_path, replace(example_manifest(), engines=engines, dtype=dtype))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine with the given GPUs, Python packages and execution providers."""

    def pretend(devices: tuple[str, ...] = (), packages: tuple[str, ...] = (), cuda: bool = False) -> None:
        available = ["CUDAExecutionProvider"] * cuda + ["CPUExecutionProvider"]
        monkeypatch.setattr(providers, "compute_capabilities", lambda: devices)
        monkeypatch.setattr(providers, "find_spec", lambda name: object() if name in packages else None)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)

    return pretend


def test_without_a_gpu_a_bundle_runs_on_the_cpu(tmp_path, machine) -> None:
    machine(packages=("tensorrt_rtx",))
    assert choose_provider(bundle(tmp_path, "tensorrt_rtx")) == "cpu"


def test_large_weights_run_in_openvino_where_the_cpu_is_fast_in_bf16(tmp_path, machine, monkeypatch) -> None:
    machine(packages=("openvino",))
    able = {"bf16": "bf16", "no bf16": "f32"}
    monkeypatch.setattr(providers, "choose_precision", lambda: able["bf16"])
    monkeypatch.setattr(Bundle, "inlined_decoder", (tmp_path / "decoder.inlined.onnx",))
    small, large = bundle(tmp_path), with_weights(bundle(tmp_path), 600_000_000)
    assert (choose_provider(small), choose_provider(large)) == ("cpu", "openvino")
    packed = replace(large, manifest=replace(large.manifest, quantization=Quantization()))
    assert choose_provider(packed) == "cpu"
    monkeypatch.setattr(providers, "choose_precision", lambda: able["no bf16"])
    assert choose_provider(large) == "cpu"
    machine()
    assert choose_provider(large) == "cpu"


def with_weights(small: Bundle, size: int) -> Bundle:
    files = {**small.manifest.files, "weights/model.safetensors": FileInfo("0" * 64, size)}
    return replace(small, manifest=replace(small.manifest, files=files))


def test_engines_come_before_onnx_runtime_where_they_fit(tmp_path, machine) -> None:
    machine(devices=("8.6",), packages=("tensorrt_rtx", "torch"), cuda=True)
    assert choose_provider(bundle(tmp_path, "tensorrt_rtx")) == "tensorrt"
    assert choose_provider(bundle(tmp_path, "tensorrt")) == "cuda"  # its package is not installed
    assert choose_provider(bundle(tmp_path)) == "cuda"
    machine(devices=("9.0",), packages=("tensorrt_rtx",))
    assert choose_provider(bundle(tmp_path, "tensorrt_rtx")) == "cpu"


def test_the_flavor_whose_engines_fit_the_device_is_taken(tmp_path, machine) -> None:
    machine(devices=("9.0",), packages=("tensorrt", "tensorrt_rtx", "torch"))
    assert engine_flavor(bundle(tmp_path, "tensorrt", capabilities=("current",))) == "tensorrt"
    assert engine_flavor(bundle(tmp_path, "tensorrt_rtx", capabilities=("9.0",))) == "tensorrt_rtx"


def test_tensorrt_that_cannot_run_says_what_is_missing(tmp_path, machine) -> None:
    machine(devices=("9.0",), packages=("tensorrt_rtx",))
    with pytest.raises(UserError, match=r"expected TensorRT engines in .*engine trt"):
        choose_provider(bundle(tmp_path), "tensorrt")
    with pytest.raises(UserError, match=r"expected the Python package tensorrt .*asap-export.gpu"):
        choose_provider(bundle(tmp_path, "tensorrt"), "tensorrt")
    with pytest.raises(UserError, match=r"compute capability 9.0 of this GPU, found engines for 8.6, 12.0"):
        choose_provider(bundle(tmp_path, "tensorrt_rtx"), "tensorrt")
    machine(packages=("tensorrt_rtx",))
    with pytest.raises(UserError, match=r"expected a CUDA device for TensorRT, found none"):
        choose_provider(bundle(tmp_path, "tensorrt_rtx"), "tensorrt")


def test_an_engine_needs_torch_for_its_buffers(tmp_path, machine) -> None:
    machine(devices=("8.6",), packages=("tensorrt_rtx",), cuda=True)
    assert choose_provider(bundle(tmp_path, "tensorrt_rtx")) == "cuda"
    with pytest.raises(UserError, match=r"expected the Python package torch .*asap-export.rtx"):
        choose_provider(bundle(tmp_path, "tensorrt_rtx"), "tensorrt")


def test_bfloat16_needs_more_than_the_cpu(tmp_path, machine) -> None:
    machine()
    for provider in ("auto", "cpu"):
        with pytest.raises(UserError, match=r"found bf16, which needs CUDA or TensorRT; use provider cuda"):
            choose_provider(bundle(tmp_path, dtype="bf16"), provider)
    assert choose_provider(bundle(tmp_path, dtype="bf16"), "cuda") == "cuda"


def test_unknown_providers_are_refused(tmp_path) -> None:
    known = "auto, cpu, openvino, cuda, tensorrt"
    with pytest.raises(UserError, match=f"^expected a provider among {known}, found npu"):
        choose_provider(bundle(tmp_path), "npu")


def decoder_part(number: int, of: int) -> EngineInfo:
    part = EnginePart(number, of, (number, number), (), ())
    return EngineInfo(
        "decoder", f"engines/decoder.{number}.engine", "tensorrt_rtx", "1.0", ("8.6",), (), part=part
    )


def test_a_decoder_in_parts_runs_where_all_of_them_are_there(tmp_path, machine) -> None:
    machine(devices=("8.6",), packages=("tensorrt_rtx", "torch"))
    whole = bundle(tmp_path, "tensorrt_rtx").manifest
    others = tuple(engine for engine in whole.engines if engine.graph != "decoder")
    parts = tuple(decoder_part(number, 3) for number in (2, 0, 1))
    complete = Bundle(tmp_path, replace(whole, engines=(*others, *parts)))
    assert choose_provider(complete) == "tensorrt"
    assert [engine.part.number for engine in complete.engines("decoder", "tensorrt_rtx")] == [0, 1, 2]
    lacking = Bundle(tmp_path, replace(whole, engines=(*others, *parts[1:])))
    assert lacking.engines("decoder", "tensorrt_rtx") == ()
    assert choose_provider(lacking) == "cpu"
