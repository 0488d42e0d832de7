"""Parts ``onnxruntime`` and ``tensorrt``: a bundle on the device, verified against PyTorch and timed, and beside
it the same bundle in C++."""

import statistics
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from on_gpu.cpp import answer_in_cpp
from on_gpu.steps import Absent, Setting, Steps

IMAGE = Path(__file__).parents[2] / "examples" / "images" / "things.png"
QUESTION = "What number is in the red box?"
NEW_TOKENS = 16
# Forms of the decoder's engine.
ENGINES: dict[str, dict[str, Any]] = {
    "fp16": {"dtype": "fp16"},
    "fp16, one engine": {"dtype": "fp16", "single_engine": True},
    "fp16, dense": {"dtype": "fp16", "dense": True},
    "bf16": {"dtype": "bf16"},
}
# Further forms of the bundle for ONNX Runtime.
PROVIDER_FORMS: dict[str, dict[str, Any]] = {
    "fp16, dense": {"dtype": "fp16", "dense": True},
    "int4": {"dtype": "fp16", "int4": True},
}
FLAVOURS = ("tensorrt", "tensorrt_rtx")
# What parity and runtime import beyond PyTorch and transformers.
NEEDED = (
    "onnx",
    "onnxruntime",
    "onnx_ir",
    "onnxscript",
    "msgspec",
    "jinja2",
    "PIL",
    "polygraphy",
    "ml_dtypes",
)


def measure_onnxruntime(setting: Setting, steps: Steps) -> None:
    """ONNX Runtime's CUDA provider: the given bundle, or the demo in each dtype that the provider may run."""
    if steps.run("provider", lambda: _cuda_provider(setting)) is None:
        return
    if setting.bundle is not None:
        steps.run("given bundle", lambda: _checked(setting.bundle, setting, "cuda"))
        return
    for dtype in ("fp16", "fp32", "bf16"):
        steps.run(f"demo, {dtype}", lambda dtype=dtype: _demo(setting, "cuda", dtype=dtype))
    for form, options in PROVIDER_FORMS.items():
        steps.run(f"demo, {form}", lambda options=options: _demo(setting, "cuda", **options))


def measure_tensorrt(setting: Setting, steps: Steps) -> None:
    """Each flavor of TensorRT that is installed: build, load, run."""
    for flavor in FLAVOURS:
        if steps.run(f"{flavor}: installed", lambda flavor=flavor: _installed(flavor, setting)) is None:
            continue
        if setting.bundle is not None:
            steps.run(f"{flavor}: given bundle", lambda: _checked(setting.bundle, setting, "tensorrt"))
            continue
        for form, options in ENGINES.items():
            given = {"engine": "trt", "flavor": flavor, **options}
            steps.run(f"{flavor}: demo, {form}", lambda given=given: _demo(setting, "tensorrt", **given))


def _need(packages: tuple[str, ...]) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise Absent(f"not installed: {', '.join(missing)}")
    try:
        version("asap-export")
    except PackageNotFoundError:  # a bundle says by which version it was made
        raise Absent("not installed: asap-export; pip install --no-deps --editable .") from None


def _cuda_provider(setting: Setting) -> dict[str, Any]:
    _need(NEEDED)
    import onnxruntime

    found = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" not in found:
        raise Absent(
            f"ONNX Runtime {onnxruntime.__version__} has {', '.join(found)} here, and no CUDAExecutionProvider; "
            "pip install onnxruntime-gpu in place of onnxruntime"
        )
    if setting.rehearsal:
        raise Absent("no CUDA device in a rehearsal")
    return {"said": f"ONNX Runtime {onnxruntime.__version__}", "providers": found}


def _installed(flavor: str, setting: Setting) -> dict[str, Any]:
    _need((flavor, *NEEDED))
    if setting.rehearsal:
        raise Absent("no CUDA device in a rehearsal")
    trt = __import__(flavor)
    return {"said": f"{flavor} {trt.__version__}"}


def _demo(
    setting: Setting, provider: str, dense: bool = False, int4: bool = False, **options: Any
) -> dict[str, Any]:
    """Export the built-in checkpoint and check the bundle."""
    from asap_export.exporter import ExportRequest, export
    from asap_export.pruning.config import PruningConfig
    from asap_export.spec import Quantization

    if dense:
        options["pruning"] = PruningConfig(method="none")
    if int4:
        options["quantization"] = Quantization()
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(ExportRequest(output=Path(folder) / "demo.bundle", **options)).bundle
        return _checked(bundle.path, setting, provider)


def _checked(bundle: Path | None, setting: Setting, provider: Any) -> dict[str, Any]:
    """Verified first, then timed: a fast wrong answer is none."""
    assert bundle is not None
    from asap_export.parity import verify

    report = verify(bundle, provider=provider)
    odd = [check for check in report.checks if check.verdict != "PASS"]
    found = {
        "verdict": report.verdict,
        "near_ties": report.near_ties,
        "dtype": report.dtype,
        "provider": report.provider,
        "compared": len(report.checks),
        "largest_error_allowed": report.limit,
        "not_passed": [f"{check.verdict} {check.case}, {check.name}: {check.detail}" for check in odd[:20]],
    }
    times, tokens, kept = _timed(bundle, setting, provider)
    said = f"{report.verdict}, prefill {times['prefill_ms']:.1f} ms, {times.get('per_token_ms', 0):.1f} per token"
    if provider == "cuda":
        cpp = answer_in_cpp(bundle, IMAGE, QUESTION, NEW_TOKENS, 1 + setting.rounds)
        if "token_ids" in cpp:
            cpp["equal"] = cpp.pop("token_ids") == tokens and cpp.pop("kept_index") == kept
            same = "the same" if cpp["equal"] else "OTHER"
            said += f"; C++ {same} tokens, prefill {cpp['prefill_ms']:.1f} ms, {cpp['per_token_ms']:.1f} per token"
        else:
            said += f"; C++: {cpp.get('failed') or cpp['absent']}"
        found["cpp"] = cpp
    return {"said": said} | found | times


def _timed(bundle: Path, setting: Setting, provider: Any) -> tuple[dict[str, Any], list[int], list[int]]:
    """Medians over answers to one question, the first not counted; its tokens, and the kept places."""
    import asap_export

    model = asap_export.load(bundle, provider=provider)
    answers = [
        model.generate([IMAGE], QUESTION, max_new_tokens=NEW_TOKENS) for _ in range(1 + setting.rounds)
    ][1:]
    seconds = [answer.timings for answer in answers]
    medians = {
        f"{name}_ms": 1e3 * statistics.median(getattr(each, name) for each in seconds)
        for name in ("preprocess", "vision", "embed", "prefill")
    }
    steps = [step for each in seconds for step in each.decode]
    if steps:
        medians["per_token_ms"] = 1e3 * statistics.median(steps)
    first = answers[0]
    kept = [] if first.kept_index is None else list(map(int, first.kept_index))
    return {**medians, "answer": first.text}, list(map(int, first.token_ids)), kept
