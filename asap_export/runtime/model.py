"""A loaded bundle: ask it questions, or run its graphs one by one."""

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Unpack

import numpy.typing as npt

from asap_export.argument_types import check_count, check_path
from asap_export.bundle import Bundle
from asap_export.bundle.manifest import EngineGraph
from asap_export.errors import UserError
from asap_export.memory import available_memory, gigabytes
from asap_export.runtime.answering import answers, pieces
from asap_export.runtime.cache import PLAIN_CACHES, Cache, CacheForm
from asap_export.runtime.conversation import Conversation
from asap_export.runtime.graphs import Graphs
from asap_export.runtime.images import ImageSource, as_images
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.openvino_session import Precision, choose_precision
from asap_export.runtime.prompt import BundleReader, Prompt
from asap_export.runtime.providers import (
    Provider,
    cache_form,
    check_precision,
    choose_provider,
    open_sessions,
    weight_memory,
)
from asap_export.runtime.request import Answer, Request, Settings
from asap_export.runtime.run_memory import RunMemory, scores_in_blocks
from asap_export.runtime.session import Session, Sessions
from asap_export.runtime.streaming import AnswerStream

__all__ = ["Model", "load"]

Array = npt.NDArray[Any]


def load(
    path: str | Path,
    provider: Provider = "auto",
    threads: int | None = None,
    precision: Precision = "auto",
) -> "Model":
    """The bundle in the folder ``path``, ready to answer.

    ``provider``: "cpu" or "cuda" for ONNX Runtime, "openvino", "tensorrt" for the bundle's engines, "auto" for the
    fastest of them here, which ``runs_on`` names; ``threads``: on the CPU, by default one per core;
    ``precision``: what OpenVINO computes products in, "f32", "bf16" or "auto", in which the CPU is fast. The
    model's ``note`` says where weights stay on disk for want of memory. Raises UserError where the bundle is
    damaged, the provider cannot run it, or memory cannot hold its weights even as stored.
    """
    check_path("path", path)
    if threads is not None:
        check_count("threads", threads)
    bundle = Bundle.open(path)
    check_precision(provider, precision)
    chosen = choose_provider(bundle, provider)
    mapped = chosen == "cpu" and _must_stay_on_disk(bundle)
    preprocess = OnnxRuntimeSession(
        bundle.graph_path("preprocess"), "cpu", threads
    )  # TensorRT cannot resize so
    sessions = open_sessions(bundle, chosen, threads, mapped, precision)
    model = Model(bundle, sessions, preprocess, chosen, caches=cache_form(bundle, chosen))
    if chosen == "openvino":
        model.runs_on = f"openvino {choose_precision(precision, threads)}"
    bundle.check_unchanged()
    if mapped:
        model.note = (
            "there is too little memory for these weights as float32, so they are read from disk at every step, "
            "which is slow; export with --quantize int4"
        )
    return model


def _must_stay_on_disk(bundle: Bundle) -> bool:
    """Whether weights fit into memory as stored, but not as float32, in which ONNX Runtime computes on a CPU.

    Raises UserError where not even the first is so: the kernel would end the process without a word.
    """
    stored, computed = weight_memory(bundle)
    available = available_memory()
    if stored > available:
        remedy = "use a larger machine" if bundle.manifest.quantization else "export with --quantize int4"
        raise UserError(
            f"expected {gigabytes(stored)} of free memory for the weights of {bundle.path}, found "
            f"{gigabytes(available)}; {remedy}"
        )
    return computed > available


class Model:
    """Made by ``load``; ``sessions`` of another ``dtype`` than the manifest's stand for a converted copy.

    ``preprocess`` is a session on the graph of that name; ``caches``: what the decoder does with them.
    """

    def __init__(
        self,
        bundle: Bundle,
        sessions: Sessions,
        preprocess: Session,
        provider: str = "cpu",
        dtype: str | None = None,
        caches: CacheForm = PLAIN_CACHES,
    ) -> None:
        self.bundle = bundle
        self.spec = bundle.manifest.model
        self.provider = provider
        self.runs_on = provider  # in words
        self.note: str | None = None  # what a user should know about how this model runs
        blocks = bool(caches.growing) and scores_in_blocks(bundle.manifest)
        memory = RunMemory(self.spec, blocks) if provider == "cpu" else None
        self.graphs = Graphs(bundle.manifest, sessions, dtype or bundle.manifest.dtype, memory, caches)
        self.reader = BundleReader(bundle, preprocess)

    def __repr__(self) -> str:
        return f"<Model of {self.bundle.path}, {self.runs_on}>"

    def generate(
        self,
        images: ImageSource | Sequence[ImageSource],
        prompt: str,
        max_new_tokens: int | None = None,
        template: bool = True,
        **settings: Unpack[Settings],
    ) -> Answer:
        """Answer a question about images: a list of them, or one alone; () for none.

        An image is a path, a PIL image, the bytes of a file, a binary file or an array; for that and the other
        arguments see ``Request``. Raises UserError for images, marks, budgets and lengths that do not fit.
        """
        return self.stream(images, prompt, max_new_tokens, template, **settings).answer

    def stream(
        self,
        images: ImageSource | Sequence[ImageSource],
        prompt: str,
        max_new_tokens: int | None = None,
        template: bool = True,
        **settings: Unpack[Settings],
    ) -> AnswerStream:
        """What ``generate`` answers, piece by piece: ``for piece in stream``, and then ``stream.answer``.

        Images and marks that do not fit are refused at once, budgets and lengths with the first piece.
        """
        request = Request(as_images(images), prompt, max_new_tokens, template=template, **settings)
        started = perf_counter()
        read = self.reader.read(request.prompt, request.images, request.template)
        return AnswerStream(self._pieces(read, request, perf_counter() - started))

    def generate_batch(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer several requests at once, each as it says; lengths may differ.

        One number of tokens is kept in all rows: at least what each asks for (see ``Request``), and more in
        rows with less text or a smaller budget than another.
        """
        if not requests:
            return []
        for request in requests:
            if not isinstance(request, Request):
                found = type(request).__name__
                raise UserError(
                    f"expected a list of asap_export.Request, found a value of type {found} in it"
                )
        started = perf_counter()
        prompts = [self.reader.read(request.prompt, request.images, request.template) for request in requests]
        return self.answer(prompts, requests, perf_counter() - started)[0]

    def chat(self) -> Conversation:
        """A conversation that remembers its turns in the KV cache."""
        return Conversation(self.reader, self.graphs)

    def answer(
        self,
        prompts: Sequence[Prompt],
        requests: Sequence[Request],
        preprocess: float = 0.0,
        cache: Cache | None = None,
    ) -> tuple[list[Answer], Cache]:
        """Answer prompts that ``reader`` has read, on top of ``cache``; returns the cache that then holds
        everything but each row's last token."""
        return answers(self.reader, self.graphs, prompts, requests, preprocess, cache)

    def _pieces(self, read: Prompt, request: Request, preprocess: float) -> Generator[str, None, Answer]:
        answer, _ = yield from pieces(self.reader, self.graphs, read, request, preprocess)
        return answer

    def vision(self, pixel_values: Array, gather_index: Array) -> Array:
        """vision_encoder.onnx: [tiles, 3, h, w], [N] int64 -> image_features [N, D] in the graphs' dtype."""
        inputs = {"pixel_values": pixel_values, "gather_index": gather_index}
        return self._run("vision_encoder", inputs)["image_features"]

    def embed(self, input_ids: Array, image_features: Array) -> Array:
        """embed_tokens.onnx: [B, T] int64, [N, D], N >= 0 -> inputs_embeds [B, T, D] in the graphs' dtype."""
        inputs = {"input_ids": input_ids, "image_features": image_features}
        return self._run("embed_tokens", inputs)["inputs_embeds"]

    def decoder_step(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """decoder.onnx: its inputs by name to its outputs by name. Caches that are left out are empty."""
        cache = self.graphs.empty_cache(len(inputs["inputs_embeds"]))
        given = {**cache.layers, **inputs}
        return self.graphs.caches.trimmed(given, self._run("decoder", given))

    def _run(self, graph: EngineGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Floating-point inputs are converted to the graphs' dtype; all outputs come to the host."""
        dtype = self.graphs.numpy_dtype
        outputs = [output.name for output in self.bundle.manifest.graphs[graph].outputs]
        kinds = {tensor.name: tensor.dtype for tensor in self.bundle.manifest.graphs[graph].inputs}
        placed = {
            name: value.astype(dtype) if kinds[name] in ("fp32", "fp16", "bf16") else value
            for name, value in inputs.items()
        }
        session = getattr(self.graphs.sessions, graph)
        found: dict[str, Array] = session.run(placed, on_host=outputs)
        return found
