"""What people would use instead of a bundle, on the same checkpoint: transformers, OpenVINO GenAI, llama.cpp."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asap_export.bench.converted import openvino_model
from asap_export.bench.gguf import gguf_model
from asap_export.bench.records import ON_HOST, BenchProvider, Contender, Kind, Precision
from asap_export.bench.reference import bf16_instructions
from asap_export.errors import UserError
from asap_export.progress import Progress, ProgressCallback
from asap_export.pruning.config import PruningConfig

__all__ = ["SERVER", "TRANSFORMERS", "Peers"]

TRANSFORMERS = "transformers-sdpa"  # its attention; the one that prunes has its method's name behind that
SERVER = "llama-server"  # llama.cpp's program, looked for on PATH
_DENSE = PruningConfig(method="none")
_NO_BF16 = "this CPU has no instructions for bf16"
# OpenVINO GenAI's rows: what is behind its name, bits of its weights if not the checkpoint's, what it is told to
# compute in.
_GENAI: tuple[tuple[str, str | None, Precision], ...] = (
    ("", None, "auto"), ("-f32", None, "f32"), ("-int8", "int8", "auto"), ("-int4", "int4", "auto"),
)  # fmt: skip
_LLAMA = {"bf16": "bf16", "q8_0": "int8", "q4_0": "int8"}  # types of weights, and what its products are in


@dataclass(frozen=True)
class Peers:
    """Contenders on ``checkpoint``; what is converted of it goes to ``work``. Who cannot take part is a line in
    ``skipped``, with the reason."""

    checkpoint: Path
    work: Path
    skipped: list[dict[str, Any]]
    progress: ProgressCallback

    def transformers(self, pruning: PruningConfig, dtype: str, provider: BenchProvider) -> list[Contender]:
        """Dense and as ``pruning`` says, where the bundles run: on the CPU in float32 and in bf16, on a GPU in
        ``dtype``."""
        on_host = provider in ON_HOST
        found = []
        for used_dtype in ("fp32", "bf16") if on_host else (dtype,):
            suffix = "-bf16" if on_host and used_dtype == "bf16" else ""
            if suffix and not bf16_instructions():
                self.skipped.append({"name": f"{TRANSFORMERS}{suffix}", "reason": _NO_BF16})
                continue
            for used in (_DENSE, pruning):
                name = f"{TRANSFORMERS}{suffix}" + (f"-{used.method}" if used.prunes else "")
                found.append(
                    Contender(
                        name=name,
                        kind="transformers",
                        source=str(self.checkpoint),
                        family=f"{TRANSFORMERS}{suffix}",
                        dtype=used_dtype,
                        method=used.method,
                        pruning=asdict(used),
                        provider="cpu" if on_host else provider,
                        computes={"fp32": "f32"}.get(used_dtype, used_dtype),
                    )
                )
        return found

    def openvino_genai(self, python: str, stored: str) -> list[Contender]:
        """Its pipeline, dense, under the interpreter ``python``: with weights of dtype ``stored`` in the precision
        that it takes by itself and in float32, and with weights of 8 and of 4 bits."""
        by_itself = "bf16" if bf16_instructions() else "f32"
        found = []
        for suffix, bits, precision in _GENAI:
            name = f"openvino-genai{suffix}"
            weights = bits or ("fp32" if stored == "fp32" else "fp16")
            self.progress(Progress("Convert for OpenVINO", detail=weights))
            try:
                folder = openvino_model(self.checkpoint, python, weights, self.work / f"openvino-{weights}")
            except UserError as error:
                self.skipped.append({"name": name, "reason": error.message})
                continue
            dtype = by_itself if precision == "auto" else precision
            # In front of weights of 8 or 4 bits OpenVINO rounds activations to 8.
            shown, computes = (f"{dtype} {bits}", "int8") if bits else (dtype, dtype)
            found.append(_dense(name, "openvino-genai", folder, shown, computes, python, precision))
        return found

    def llama_cpp(self) -> list[Contender]:
        """llama.cpp's server, dense, with weights of several types."""
        server = shutil.which(SERVER)
        if server is None:
            self.skipped.append({"name": "llama.cpp", "reason": f"there is no {SERVER} on PATH"})
            return []
        found = []
        for weights, computes in _LLAMA.items():
            name = f"llama.cpp-{weights}"
            self.progress(Progress("Write GGUF", detail=weights))
            try:
                folder = gguf_model(self.checkpoint, weights, self.work / f"gguf-{weights}")
            except UserError as error:
                self.skipped.append({"name": name, "reason": error.message})
                continue
            found.append(_dense(name, "llama.cpp", folder, weights, computes, server))
        return found


def _dense(
    name: str,
    kind: Kind,
    source: Path,
    dtype: str,
    computes: str,
    program: str,
    precision: Precision = "auto",
) -> Contender:
    """One of a library that does not prune, on the CPU."""
    return Contender(
        name=name,
        kind=kind,
        source=str(source),
        family=name,
        dtype=dtype,
        method=_DENSE.method,
        pruning=asdict(_DENSE),
        computes=computes,
        precision=precision,
        program=program,
    )
