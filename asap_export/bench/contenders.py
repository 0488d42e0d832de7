"""Who takes part: bundles, and transformers on their checkpoint, dense and pruned."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from asap_export.bench.records import BenchProvider, Contender
from asap_export.bundle import Bundle
from asap_export.errors import UserError
from asap_export.pruning.config import PruningConfig
from asap_export.spec import ModelSpec

__all__ = ["PEERS", "bundle_contenders", "peer_contenders", "sizes_of"]

PEERS = "transformers-sdpa"  # its attention; the one that prunes has its method's name behind that


def bundle_contenders(bundles: Sequence[Bundle], provider: BenchProvider = "cpu") -> list[Contender]:
    """A contender for each bundle, by the name of its folder. Raises UserError where two have the same name, or
    where they are of different models."""
    contenders = []
    for bundle in bundles:
        manifest = bundle.manifest
        quantized = f" int{manifest.quantization.bits}" if manifest.quantization else ""
        contenders.append(
            Contender(
                name=bundle.path.resolve().name.removesuffix(".bundle"),
                kind="bundle",
                source=str(bundle.path),
                family=f"bundle {manifest.dtype}{quantized}",
                dtype=f"{manifest.dtype}{quantized}",
                method=manifest.pruning.method,
                pruning=asdict(manifest.pruning),
                provider=provider,
            )
        )
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
            dtype="fp32" if provider == "cpu" else dtype,
            method=used.method,
            pruning=asdict(used),
            provider=provider,
        )
        for used in (PruningConfig(method="none"), pruning)
    ]
