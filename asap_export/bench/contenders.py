"""Who takes part: bundles, and transformers on their checkpoint, dense and pruned."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from asap_export.bench.records import ON_HOST, BenchProvider, Contender
from asap_export.bundle import Bundle
from asap_export.errors import UserError
from asap_export.pruning.config import PruningConfig
from asap_export.runtime.openvino_session import choose_precision
from asap_export.runtime.providers import choose_provider
from asap_export.spec import ModelSpec

__all__ = ["PEERS", "bundle_contenders", "peer_contenders", "sizes_of"]

PEERS = "transformers-sdpa"  # its attention; the one that prunes has its method's name behind that


def bundle_contenders(bundles: Sequence[Bundle], provider: BenchProvider = "cpu") -> list[Contender]:
    """A contender for each bundle, by the name of its folder; for OpenVINO one more of each, in the precision that
    this CPU is fast in: beside ONNX Runtime its times say something. Raises UserError where two have the same
    name, where they are of different models, or where OpenVINO cannot run one."""
    contenders = [_of_bundle(bundle, "cpu" if provider == "openvino" else provider) for bundle in bundles]
    if provider == "openvino":
        for bundle in bundles:
            choose_provider(bundle, provider)
        precision = choose_precision()
        contenders += [_of_bundle(bundle, provider, precision) for bundle in bundles]
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


def _of_bundle(bundle: Bundle, provider: BenchProvider, precision: str | None = None) -> Contender:
    """``precision``: what products are computed in, where that is not the bundle's dtype."""
    manifest = bundle.manifest
    quantized = f" int{manifest.quantization.bits}" if manifest.quantization else ""
    dtype = f"{precision or manifest.dtype}{quantized}"
    name = bundle.path.resolve().name.removesuffix(".bundle")
    return Contender(
        name=f"{name}-openvino" if precision else name,
        kind="bundle",
        source=str(bundle.path),
        family=f"{'openvino' if precision else 'bundle'} {dtype}",
        dtype=dtype,
        method=manifest.pruning.method,
        pruning=asdict(manifest.pruning),
        provider=provider,
    )


def sizes_of(model: ModelSpec) -> tuple[str | int, ...]:
    """What is the same for all contenders that can be compared."""
    return (
        model.architecture, model.layers, model.hidden_size, model.intermediate_size, model.heads,
        model.kv_heads, model.vocab_size, model.tile_size, model.image_token_id,
    )  # fmt: skip


def peer_contenders(
    checkpoint: Path, pruning: PruningConfig, dtype: str, provider: BenchProvider
) -> list[Contender]:
    """transformers on a checkpoint, dense and as ``pruning`` says, where the bundles run: on the CPU in float32,
    on a GPU in ``dtype``."""
    return [
        Contender(
            name=PEERS if used.method == "none" else f"{PEERS}-{used.method}",
            kind="transformers",
            source=str(checkpoint),
            family=PEERS,
            dtype="fp32" if provider in ON_HOST else dtype,
            method=used.method,
            pruning=asdict(used),
            provider="cpu" if provider in ON_HOST else provider,
        )
        for used in (PruningConfig(method="none"), pruning)
    ]
