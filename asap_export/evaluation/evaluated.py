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
from asap_export.checkpoint.loading import TORCH_DTYPES, check_processor, load_model
from asap_export.errors import UserError
from asap_export.evaluation.device import device_name, memory_of, needed_by, rows_in
from asap_export.evaluation.methods import METHODS, NamedMethod
from asap_export.evaluation.ort_answers import OrtAnswers
from asap_export.evaluation.torch_answers import TorchAnswers
from asap_export.exporter import ExportRequest, export
from asap_export.memory import gigabytes
from asap_export.parity.comparison_memory import weight_memory
from asap_export.parity.processor_reader import ProcessorReader
from asap_export.parity.source import check_source, open_source
from asap_export.progress import Progress, ProgressCallback, no_progress
from asap_export.pruning.config import PruningConfig
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.prompt import BundleReader, PromptReader
from asap_export.spec import Dtype, ModelSpec

__all__ = ["EvaluatedModel", "open_evaluated"]


@dataclass(frozen=True)
class EvaluatedModel:
    """Nothing of it is loaded yet.

    ``spec`` are its sizes; ``files`` the checkpoint's, with their sha256; ``dtype`` is what both runtimes compute
    in, ``device`` where PyTorch does. ``checkpoint`` opens a bundle's only when it is asked for; it raises
    UserError where that is not found, or no longer what the bundle was made from.
    """

    name: str
    spec: ModelSpec
    files: dict[str, str]
    dtype: Dtype
    device: torch.device
    bundle: Bundle | None
    checkpoint: Callable[[], Checkpoint] = field(compare=False)
    progress: ProgressCallback = field(default=no_progress, compare=False)

    def reader(self) -> PromptReader:
        """A bundle's own, or the checkpoint's processor; both runtimes get its token ids and pixel values."""
        if self.bundle is not None:
            return BundleReader(self.bundle, OnnxRuntimeSession(self.bundle.graph_path("preprocess")))
        return ProcessorReader(self.checkpoint().folder, self.spec)

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

    def rows(self, max_new_tokens: int) -> int:
        """Questions that PyTorch answers at once. Raises UserError where its device, or the host on the way to it,
        has too little memory."""
        itemsize = TORCH_DTYPES[self.dtype].itemsize
        weights = weight_memory(self.checkpoint(), self.spec.layers) * itemsize // 4
        needed, memory = (
            needed_by(self.spec, weights, itemsize, max_new_tokens, self.device),
            memory_of(self.device),
        )
        rows = rows_in(needed, memory)
        self._require(
            needed.fixed + rows * needed.row,
            memory.free,
            "" if self.device.type == "cpu" else f" on {device_name(self.device)}",
        )
        if self.device.type != "cpu":
            self._require(weights, memory_of(torch.device("cpu")).free, " on the host to load")
        return rows

    def _require(self, needed: int, free: int, where: str) -> None:
        if needed > free:
            raise UserError(
                f"expected about {gigabytes(needed)} of free memory{where} for the model in {self.dtype}, found "
                f"{gigabytes(free)}; free some, or use another machine"
            )

    def torch_answers(self, max_new_tokens: int) -> TorchAnswers:
        """The PyTorch reference on the device."""
        self.progress(Progress("Load the model"))
        rows = self.rows(max_new_tokens)
        llava = load_model(self.checkpoint(), self.dtype)
        return TorchAnswers(llava.to(self.device), self.spec, max_new_tokens, rows)

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


def open_evaluated(
    source: str | Path | None,
    *,
    model: str | None = None,
    revision: str | None = None,
    dtype: Dtype | None = None,
    device: torch.device,
    progress: ProgressCallback = no_progress,
) -> EvaluatedModel:
    """A bundle's folder, or a checkpoint as ``open_checkpoint`` takes it; None is the built-in demo.

    ``model`` is where a bundle's checkpoint is now; ``dtype`` that of a checkpoint's arithmetic, by default
    float32 on the CPU and its own on a GPU. Raises UserError where it is neither, and for an option that
    would do nothing.
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
        return EvaluatedModel(
            str(source), manifest.model, manifest.source.files, manifest.dtype, device, bundle,
            cache(of_bundle), progress,
        )  # fmt: skip
    if model is not None:
        raise UserError(f"expected --model with a bundle, found {source or 'the demo'}; leave it out")
    checkpoint = open_checkpoint(source, revision, progress)
    check_processor(checkpoint.folder, checkpoint.spec)
    dtype = dtype or ("fp32" if device.type == "cpu" else checkpoint.spec.dtype)
    return EvaluatedModel(
        checkpoint.source, checkpoint.spec, _digests(checkpoint, progress), dtype, device, None,
        lambda: checkpoint, progress,
    )  # fmt: skip


def _digests(checkpoint: Checkpoint, progress: ProgressCallback) -> dict[str, str]:
    """sha256 of all its weights, by file."""
    shards = {place.file.name: place.file for place in checkpoint.tensors.values()}
    return sha256_of_each(dict(sorted(shards.items())), "Hash checkpoint", progress)
