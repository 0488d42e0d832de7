"""A bundle whose decoder runs under ONNX Runtime's profiler."""

import json
from pathlib import Path
from typing import Any

import onnx

from asap_export.bench import resident
from asap_export.bench.bundle_model import BundleModel
from asap_export.bench.profile import mean_summary, name_nodes, summaries
from asap_export.bench.records import Workload
from asap_export.bench.staged import StagedRunner
from asap_export.bundle import Bundle
from asap_export.runtime.model import Model
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.providers import cache_form, graph_file
from asap_export.runtime.session import Sessions

__all__ = ["ProfiledRunner"]


class ProfiledRunner:
    """The worker's job "profile", once: the profiler slows runs down, so it measures shares and no times."""

    def __init__(self, path: Path, threads: int, folder: Path) -> None:
        bundle = Bundle.open(path)
        self._decoder = OnnxRuntimeSession(
            _named_decoder(bundle),
            "cpu",
            threads,
            weights=bundle.path,
            profile=folder / f"profile-{path.name}",
        )
        vision = OnnxRuntimeSession(bundle.graph_path("vision_encoder"), "cpu", threads)
        embedding = OnnxRuntimeSession(bundle.graph_path("embed_tokens"), "cpu", threads)
        preprocess = OnnxRuntimeSession(bundle.graph_path("preprocess"), "cpu", threads)
        sessions = Sessions(vision, embedding, self._decoder)
        model = Model(bundle, sessions, preprocess, "cpu", caches=cache_form(bundle, "cpu"))
        self._runner = StagedRunner(BundleModel(model), resident)
        self.weights = self._runner.weights

    def profile(self, workload: Workload, decode_steps: int) -> dict[str, Any]:
        """Summaries (see ``profile.summaries``) of one prefill, and the mean of ``decode_steps`` tokens behind
        it."""
        self._runner.prefill(workload, 0)  # the first one finds no memory of its own yet
        self._runner.prefill(workload, decode_steps)
        file = self._decoder.end_profiling()
        runs = summaries(json.loads(file.read_text(encoding="utf-8")))
        file.unlink()
        prefill, *steps = runs[-1 - decode_steps :]
        return {"prefill": prefill, "decode": mean_summary(steps) if steps else None}


def _named_decoder(bundle: Bundle) -> bytes:
    """The bundle's decoder with a name for every node of ASAP; its weights stay where they are."""
    decoder = onnx.load(graph_file(bundle, "decoder", "cpu"), load_external_data=False)
    name_nodes(decoder)
    serialized: bytes = decoder.SerializeToString()
    return serialized
