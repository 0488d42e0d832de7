"""Bundles that take part, and what each computes in."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from asap_export.bench.records import BenchProvider, Contender, Precision
from asap_export.bundle import Bundle
from asap_export.errors import UserError
from asap_export.runtime.openvino_session import choose_precision
from asap_export.runtime.providers import choose_provider
from asap_export.spec import ModelSpec

__all__ = ["bundle_contenders", "sizes_of"]


def bundle_contenders(
    bundles: Sequence[Bundle],
    provider: BenchProvider = "cpu",
    precision: Precision = "auto",
    threads: int | None = None,
) -> list[Contender]:
    """A contender for each bundle, by the name of its folder; for OpenVINO one more of each, in ``precision``:
    beside ONNX Runtime its times say something. Raises UserError where two have the same name, where they are of
    different models, or where OpenVINO cannot run one."""
    contenders = [_of_bundle(bundle, "cpu" if provider == "openvino" else provider) for bundle in bundles]
    if provider == "openvino":
        for bundle in bundles:
            choose_provider(bundle, provider)
        chosen = choose_precision(precision, threads)
        contenders += [
            _of_bundle(bundle, provider, "bf16" if chosen == "bf16" else "f32") for bundle in bundles
        ]
    for name, count in Counter(contender.name for contender in contenders).items():
        if count > 1:
            raise UserError(f"expected bundles of different names, found {count} called {name}; rename one")
    models = {sizes_of(bundle.manifest.model): bundle.path for bundle in bundles}
    if len(models) > 1:
        first, second, *_ = models.values()
        raise UserError(
            f"expected bundles of one model, found different ones in {first} and {second}; measure them apart"
        )
    return contenders


def _of_bundle(bundle: Bundle, provider: BenchProvider, precision: Precision = "auto") -> Contender:
    """``precision``: what OpenVINO computes products in."""
    manifest = bundle.manifest
    quantized = f" int{manifest.quantization.bits}" if manifest.quantization else ""
    in_openvino = provider == "openvino"
    dtype = f"{precision if in_openvino else manifest.dtype}{quantized}"
    name = bundle.path.resolve().name.removesuffix(".bundle")
    return Contender(
        name=f"{name}-openvino" if in_openvino else name,
        kind="bundle",
        source=str(bundle.path),
        family=f"{'openvino' if in_openvino else 'bundle'} {dtype}",
        dtype=dtype,
        method=manifest.pruning.method,
        pruning=asdict(manifest.pruning),
        provider=provider,
        computes=precision if in_openvino else _computes(bundle, provider),
        precision=precision,
    )


def _computes(bundle: Bundle, provider: BenchProvider) -> str:
    """What ONNX Runtime or TensorRT multiplies in; ONNX Runtime's CPU provider widens fp16 to float32."""
    manifest = bundle.manifest
    if provider != "cpu":
        return {"fp32": "f32"}.get(manifest.dtype, manifest.dtype)
    decoder = manifest.cpu_decoder
    return "int8" if decoder and "int8-activations" in decoder.passes else "f32"


def sizes_of(model: ModelSpec) -> tuple[str | int, ...]:
    """What is the same for all contenders that can be compared."""
    return (
        model.architecture, model.layers, model.hidden_size, model.intermediate_size, model.heads,
        model.kv_heads, model.vocab_size, model.tile_size, model.image_token_id,
    )  # fmt: skip
