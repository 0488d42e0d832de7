"""Who takes part: bundles, and the peers that people would use instead."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from asap_export.bench.records import BenchProvider, Contender
from asap_export.bundle import Bundle
from asap_export.errors import UserError
from asap_export.pruning.config import PruningConfig
from asap_export.spec import ModelSpec

__all__ = ["PEERS", "bundle_contenders", "chosen_peers", "peer_contenders", "sizes_of"]

PEERS = (
    "transformers-sdpa", "transformers-sdpa-asap", "transformers-eager", "transformers-eager-asap",
    "transformers-compile", "openvino-genai",
)  # fmt: skip


def chosen_peers(listed: str | None) -> tuple[str, ...]:
    """The peers of a comma-separated list; all without one. Raises UserError for an unknown or repeated name."""
    if listed is None or listed == "all":
        return PEERS
    if listed == "none":
        return ()
    names = tuple(name.strip() for name in listed.split(","))
    for name, count in Counter(names).items():
        if name not in PEERS or count > 1:
            found = f"{name or 'nothing'}{' twice' if name in PEERS else ''}"
            raise UserError(
                f"expected --peers among {', '.join(PEERS)}, all or none, found {found}; change it"
            )
    return names


def bundle_contenders(bundles: Sequence[Bundle], provider: BenchProvider = "cpu") -> list[Contender]:
    """A contender for each bundle, by the name of its folder. Raises UserError where two have the same name, or
    where they are of different models."""
    contenders = []
    for bundle in bundles:
        manifest = bundle.manifest
        quantized = f" int{manifest.quantization.bits}" if manifest.quantization else ""
        method = manifest.pruning.method
        assert method != "random"  # no graph can hold it
        contenders.append(
            Contender(
                name=bundle.path.resolve().name.removesuffix(".bundle"),
                kind="bundle",
                source=str(bundle.path),
                family=f"bundle {manifest.dtype}{quantized}",
                dtype=f"{manifest.dtype}{quantized}",
                method=method,
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
    names: Sequence[str],
    checkpoint: Path,
    pruning: PruningConfig,
    openvino: Path | None,
    openvino_python: str | None,
) -> list[Contender]:
    """The peers on a checkpoint, in float32; those that prune do so as ``pruning`` says.

    ``openvino`` is the converted model, where there is one.
    """
    contenders = []
    for name in names:
        library, attention, *rest = name.split("-")
        pruned = rest == ["asap"]
        if library == "openvino":
            contenders.append(
                Contender(
                    name=name,
                    kind="openvino",
                    source=str(openvino or ""),
                    family=name,
                    dtype="fp32",
                    method="none",
                    pruning=asdict(PruningConfig(method="none")),
                    python=openvino_python,
                )
            )
            continue
        compiled = attention == "compile"
        used = pruning if pruned else PruningConfig(method="none")
        assert used.method != "random"
        contenders.append(
            Contender(
                name=name,
                kind="transformers",
                source=str(checkpoint),
                family=f"{library}-{attention}",
                dtype="fp32",
                method=used.method,
                pruning=asdict(used),
                attention="sdpa" if compiled else attention,
                compiled=compiled,
            )
        )
    return contenders
