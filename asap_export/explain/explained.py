"""What is explained: a bundle's pruning with the checkpoint it was made from, or a checkpoint with any pruning."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from asap_export.bundle import MANIFEST, Bundle
from asap_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from asap_export.checkpoint.loading import check_processor, load_model
from asap_export.errors import UserError
from asap_export.memory import available_memory, gigabytes
from asap_export.model.anyres import TileGeometry, packing
from asap_export.model.decoder import Cut
from asap_export.model.reference import PromptBatch, Reference
from asap_export.parity.comparison_memory import attention_memory, weight_memory
from asap_export.parity.processor_reader import ProcessorReader
from asap_export.parity.quantization import quantize_in_place, quantized_file
from asap_export.parity.source import check_source, open_source
from asap_export.progress import Progress, ProgressCallback
from asap_export.pruning.config import DEFAULT_KEEP_RATIO, Budget, PruningConfig
from asap_export.runtime.prompt import Prompt
from asap_export.spec import ModelSpec

__all__ = ["ExplainedModel", "open_explained"]


@dataclass(frozen=True)
class ExplainedModel:
    """A bundle or a checkpoint, and the settings that are explained; no weight is loaded yet."""

    name: str
    checkpoint: Checkpoint
    bundle: Bundle | None
    pruning: PruningConfig
    budget: Budget
    reader: ProcessorReader

    @property
    def spec(self) -> ModelSpec:
        return self.checkpoint.spec

    @property
    def geometry(self) -> TileGeometry:
        return TileGeometry.of(self.spec)

    def keep_for(self, visual_tokens: int) -> int:
        """Visual tokens of a prompt that survive the cut; UserError where the budget is too small for it."""
        return self.budget.keep_for(visual_tokens, self.spec.layers, self.pruning.prune_after)

    def load(self, visual_tokens: int, progress: ProgressCallback) -> Reference:
        """The model up to the first layer behind the cut, computing in float32 with weights rounded or quantized
        as the bundle's.

        Raises UserError where there is too little memory for it, and for prompts of ``visual_tokens``.
        """
        layers = (
            self.pruning.prune_after + 1
        )  # those that see every token, and one, behind which a cut can lie
        needed = weight_memory(self.checkpoint, layers) + attention_memory(self.spec.heads, visual_tokens)
        if needed > (available := available_memory()):
            raise UserError(
                f"expected about {gigabytes(needed)} of free memory for the first {layers} layers in float32 and "
                f"the attention of {visual_tokens} visual tokens, found {gigabytes(available)}; free some, or use "
                "another machine"
            )
        progress(Progress("Load the model"))
        manifest = self.bundle.manifest if self.bundle else None
        dtype = manifest.dtype if manifest else self.spec.dtype
        llava = load_model(self.checkpoint, dtype, layers).float()
        if self.bundle is not None and manifest is not None and manifest.quantization is not None:
            quantize_in_place(llava, quantized_file(self.bundle), manifest.quantization, dtype)
        return Reference(llava, self.pruning)

    def cut(self, reference: Reference, read: Prompt) -> Cut:
        """The cut that a prompt with images gets, as a prefill of one sequence."""
        seen: list[Cut] = []
        reference.decoder.on_cut = seen.append
        ids = torch.from_numpy(read.input_ids)[None]
        gather_index = torch.from_numpy(packing(read.image_sizes, self.geometry).gather_index)
        prompt = PromptBatch(ids, torch.ones_like(ids), torch.from_numpy(read.pixel_values), gather_index)
        reference.prefill(prompt, self.keep_for(len(gather_index)))
        return seen[0]


def open_explained(
    source: str | Path | None,
    model: str | None,
    revision: str | None,
    budget: Budget | None,
    pruning: Mapping[str, Any],
    progress: ProgressCallback,
) -> ExplainedModel:
    """What is explained; ``source`` is a bundle, or a checkpoint as ``open_checkpoint`` takes it.

    ``budget`` and the fields in ``pruning`` replace the bundle's own, or the defaults of an export. ``model`` is
    where a bundle's checkpoint is now.

    Raises UserError where the source cannot be read or prunes nothing.
    """
    if source is not None and (Path(source) / MANIFEST).is_file():
        return _of_bundle(Path(source), model, revision, budget, pruning, progress)
    if model is not None:
        raise UserError(
            f"expected --model with a bundle, found {source or 'the demo checkpoint'}; leave it out"
        )
    checkpoint = open_checkpoint(source, revision, progress)
    check_processor(checkpoint.folder, checkpoint.spec)
    config = _checked(PruningConfig(**pruning), checkpoint)
    reader = ProcessorReader(checkpoint.folder, checkpoint.spec)
    return ExplainedModel(
        checkpoint.source, checkpoint, None, config, budget or Budget(ratio=DEFAULT_KEEP_RATIO), reader
    )


def _of_bundle(
    path: Path,
    model: str | None,
    revision: str | None,
    budget: Budget | None,
    pruning: Mapping[str, Any],
    progress: ProgressCallback,
) -> ExplainedModel:
    bundle = Bundle.open(path, progress=progress)
    manifest = bundle.manifest
    if not manifest.pruning.prunes:
        raise UserError(
            f"expected a bundle that prunes, found a dense one at {path}, without a cut to explain; give the "
            f"checkpoint, {manifest.source.id}, instead"
        )
    checkpoint = open_source(bundle, model, revision, progress)
    check_source(bundle, checkpoint, progress)
    config = _checked(replace(manifest.pruning, **pruning), checkpoint)
    reader = ProcessorReader(bundle.processor_path, checkpoint.spec)
    return ExplainedModel(str(path), checkpoint, bundle, config, budget or manifest.budget, reader)


def _checked(pruning: PruningConfig, checkpoint: Checkpoint) -> PruningConfig:
    layers = checkpoint.spec.layers
    if pruning.prune_after >= layers:
        raise UserError(
            f"expected --prune-after below the model's {layers} layers, found {pruning.prune_after}; lower it"
        )
    return pruning
