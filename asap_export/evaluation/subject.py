"""What is evaluated: a checkpoint, or a bundle with the checkpoint it was made from where that is needed."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch

from asap_export.bundle import MANIFEST, Bundle, tool_versions
from asap_export.bundle.hashing import sha256_of_each
from asap_export.checkpoint.checkpoint import Checkpoint, open_checkpoint
from asap_export.checkpoint.loading import check_processor, load_model
from asap_export.errors import UserError
from asap_export.evaluation.methods import METHODS, NamedMethod
from asap_export.evaluation.ort_answers import OrtAnswers
from asap_export.evaluation.torch_answers import TorchAnswers
from asap_export.exporter import ExportRequest, export
from asap_export.memory import available_memory, gigabytes
from asap_export.parity.memory import attention_memory, weight_memory
from asap_export.parity.source import check_source, open_source
from asap_export.progress import Progress, ProgressCallback, no_progress
from asap_export.pruning.config import PruningConfig
from asap_export.runtime.prompt import PromptReader
from asap_export.spec import ModelSpec

__all__ = ["Subject", "open_subject"]


@dataclass(frozen=True)
class Subject:
    """Nothing of it is loaded yet.

    ``spec`` are its sizes; ``files`` the checkpoint's, with their sha256; ``dtype`` is what both runtimes compute
    in. ``checkpoint`` opens a bundle's only when it is asked for; it raises UserError where
    that is not found, or no longer what the bundle was made from.
    """

    name: str
    spec: ModelSpec
    files: dict[str, str]
    dtype: str
    processor: Path
    bundle: Bundle | None
    checkpoint: Callable[[], Checkpoint] = field(compare=False)
    progress: ProgressCallback = field(default=no_progress, compare=False)

    def reader(self) -> PromptReader:
        return PromptReader(self.processor, self.spec)

    @property
    def fingerprint(self) -> str:
        """Tells whether two subjects are the same."""
        quantization = self.bundle.manifest.quantization if self.bundle else None
        return sha256(repr((sorted(self.files.items()), quantization)).encode()).hexdigest()

    def own_method(self) -> NamedMethod:
        """The bundle's, under the name of a method with the same settings, or as "bundle"."""
        assert self.bundle is not None
        pruning = self.bundle.manifest.pruning
        label = next((name for name, config in METHODS.items() if config == pruning), "bundle")
        return NamedMethod(label, pruning)

    def check_memory(self, device: str) -> None:
        """Raise UserError where there is too little memory for the PyTorch reference, and what it computes with.

        The weights of a GPU pass through the memory of its host, its attention does not.
        """
        needed = weight_memory(self.checkpoint(), self.spec.layers) // (1 if self.dtype == "fp32" else 2)
        if device == "cpu":
            needed += attention_memory(self.spec.heads, self.spec.max_visual_tokens)
        if needed > (available := available_memory()):
            raise UserError(
                f"expected about {gigabytes(needed)} of free memory for the model in {self.dtype}, found "
                f"{gigabytes(available)}; free some, or use another machine"
            )

    def torch_answers(self, device: str, max_new_tokens: int) -> TorchAnswers:
        """The PyTorch reference."""
        self.progress(Progress("Load the model"))
        llava = load_model(self.checkpoint(), self.dtype)
        return TorchAnswers(llava.to(torch.device(device)), self.spec, max_new_tokens)

    def ort_answers(self, methods: Sequence[NamedMethod], folder: Path, max_new_tokens: int) -> OrtAnswers:
        """Bundles of all methods: the subject itself, or exports in ``folder``, which a later call finds there."""
        bundles = {method.pruning: self._bundle_of(method, folder) for method in methods}
        return OrtAnswers(bundles, max_new_tokens)

    def _bundle_of(self, method: NamedMethod, folder: Path) -> Bundle:
        if self.bundle is not None and self.bundle.manifest.pruning == method.pruning:
            return self.bundle
        place = folder / method.label.replace(":", "_")
        if there := self._exported(place, method.pruning):
            return there
        checkpoint = self.checkpoint()
        request = ExportRequest(
            model=None if checkpoint.source == "demo" else checkpoint.source,
            revision=checkpoint.revision,
            output=place,
            dtype=self.dtype,
            quantization=self.bundle.manifest.quantization if self.bundle else None,
            pruning=method.pruning,
            overwrite=True,
        )

        def within(stand: Progress) -> None:
            self.progress(Progress(f"Export {method.label}", None, stand.stage))

        return export(request, within).bundle

    def _exported(self, place: Path, pruning: PruningConfig) -> Bundle | None:
        """The bundle in ``place``, where an earlier call has left the right one."""
        with suppress(UserError):
            bundle = Bundle.open(place, progress=self.progress)
            found = bundle.manifest
            same_weights = all(found.source.files.get(name) == digest for name, digest in self.files.items())
            same_settings = (found.pruning, found.dtype) == (pruning, self.dtype)
            if same_weights and same_settings and found.tools == tool_versions():
                return bundle
        return None


def open_subject(
    source: str | Path | None,
    *,
    model: str | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    progress: ProgressCallback = no_progress,
) -> Subject:
    """A bundle's folder, or a checkpoint as ``open_checkpoint`` takes it; None is the built-in demo.

    ``model`` is where a bundle's checkpoint is now; ``dtype`` that of a checkpoint's arithmetic, float32 by
    default. Raises UserError where it is neither, and for an option that would do nothing.
    """
    if source is not None and (Path(source) / MANIFEST).is_file():
        if dtype is not None:
            raise UserError(f"expected --dtype with a checkpoint, found the bundle {source}; leave it out")
        bundle = Bundle.open(source, progress=progress)

        def of_bundle() -> Checkpoint:
            checkpoint = open_source(bundle, model, revision, progress)
            check_source(bundle, checkpoint, progress)
            return checkpoint

        manifest = bundle.manifest
        return Subject(
            str(source), manifest.model, manifest.source.files, manifest.dtype, bundle.processor_path, bundle,
            cache(of_bundle), progress,
        )  # fmt: skip
    if model is not None:
        raise UserError(f"expected --model with a bundle, found {source or 'the demo'}; leave it out")
    checkpoint = open_checkpoint(source, revision, progress)
    check_processor(checkpoint.folder, checkpoint.spec)
    return Subject(
        checkpoint.source, checkpoint.spec, _digests(checkpoint, progress), dtype or "fp32", checkpoint.folder,
        None, lambda: checkpoint, progress,
    )  # fmt: skip


def _digests(checkpoint: Checkpoint, progress: ProgressCallback) -> dict[str, str]:
    """sha256 of all its weights, by file."""
    shards = {place.file.name: place.file for place in checkpoint.tensors.values()}
    return sha256_of_each(dict(sorted(shards.items())), "Hash checkpoint", progress)
