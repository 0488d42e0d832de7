"""What an export is asked for. Each setting is stated here once; the command line makes its options of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from asap_export.errors import UserError
from asap_export.pruning.config import Budget, PruningConfig
from asap_export.spec import CpuPass, Dtype, Quantization

__all__ = ["BUNDLE", "ENGINES", "LIMITS", "RUNTIME", "ExportRequest"]

Engine = Literal["ort", "trt"]
Weights = Literal["auto", "link", "copy"]

# Groups of settings, as the help shows them.
BUNDLE = "Checkpoint and bundle"
RUNTIME = "What is to run the bundle"
LIMITS = "Largest request (TensorRT engines are built for it)"
ENGINES = "TensorRT engines (with --engine trt)"


def _setting(
    default: Any, says: str, group: str, *, shown: str = "", metavar: str = "", short: str = ""
) -> Any:
    """A field of the request that is an option of its name.

    ``says`` is the option's help, ``shown`` its default in words where the value does not say it.
    """
    stated = {"says": says, "group": group, "shown": shown, "metavar": metavar, "short": short}
    return field(default=default, metadata=stated)


@dataclass(frozen=True)
class ExportRequest:
    """What to export; None stands for the checkpoint's own value or the default.

    Fields without a help text are made of several options each (cli/export.py). Raises UserError for settings that
    contradict each other, or of which one would do nothing.
    """

    model: str | None = _setting(
        None,
        "Checkpoint: its folder, or its id on the Hugging Face hub (owner/name). Without it, the built-in demo.",
        BUNDLE,
        metavar="SOURCE",
    )
    revision: str | None = _setting(
        None, "Branch, tag or commit of a hub id.", BUNDLE, shown="main", metavar="NAME"
    )
    output: Path | None = _setting(
        None,
        "Folder to write the bundle to.",
        BUNDLE,
        shown="the model's name with .bundle",
        metavar="FOLDER",
        short="-o",
    )
    overwrite: bool = _setting(False, "Replace the bundle that is in the output folder.", BUNDLE)
    dtype: Dtype | None = _setting(
        None,
        "Number format of weights and arithmetic: fp32, fp16 or bf16.",
        BUNDLE,
        shown="the checkpoint's",
        metavar="TYPE",
    )
    quantization: Quantization | None = None
    weights: Weights = _setting(
        "auto",
        "How weights whose format stays get into the bundle: link (hard links), copy, or auto, which links above "
        "2 GB.",
        BUNDLE,
        metavar="HOW",
    )
    budget: Budget | None = None
    pruning: PruningConfig = field(default_factory=PruningConfig)
    engine: Engine = _setting(
        "ort",
        "ort: ONNX graphs, for ONNX Runtime. trt: the same, and a TensorRT engine of each.",
        RUNTIME,
        metavar="NAME",
    )
    cpu_passes: tuple[CpuPass, ...] | None = None  # (): no decoder for CPUs beside decoder.onnx
    max_batch: int | None = _setting(None, "Prompts that run at once.", LIMITS, shown="1", metavar="N")
    max_images: int | None = _setting(None, "Images in one prompt.", LIMITS, shown="1", metavar="N")
    max_text: int | None = _setting(None, "Text tokens in one prompt.", LIMITS, shown="512", metavar="N")
    max_new_tokens: int | None = _setting(None, "Tokens in one answer.", LIMITS, shown="512", metavar="N")
    flavor: Literal["auto", "tensorrt", "tensorrt_rtx"] = _setting(
        "auto",
        "Which TensorRT builds: tensorrt (for this machine's GPU), tensorrt_rtx (for any), or auto: what is "
        "installed.",
        ENGINES,
        metavar="NAME",
    )
    compute_capabilities: tuple[str, ...] = ()
    layers_per_engine: int | None = _setting(
        None,
        "Split the decoder into engines of at most N layers, which take less memory to build.",
        ENGINES,
        shown="two engines, before and behind the cut",
        metavar="N",
    )
    single_engine: bool = _setting(
        False,
        "One engine for the decoder, in which no attention behind the cut has a kernel of its own.",
        ENGINES,
    )
    check_memory: bool = _setting(
        True, "Refuse to build where memory seems too small for it.", ENGINES, shown="on"
    )

    def __post_init__(self) -> None:
        self._check_choices()
        if self.quantization is not None:
            self._check_quantization(self.quantization)
        if "int8-activations" in (self.cpu_passes or ()) and (
            self.quantization is None or self.engine == "trt"
        ):
            raise UserError(
                "expected int8-activations with --quantize and --engine ort, found it without; it would do "
                "nothing, leave it out"
            )
        if self.single_engine and self.layers_per_engine is not None:
            raise UserError(
                "expected --single-engine or --layers-per-engine, found both; leave one of them out"
            )
        of_engines = {
            "--compute-capability": bool(self.compute_capabilities),
            "--flavor": self.flavor != "auto",
            "--layers-per-engine": self.layers_per_engine is not None,
            "--single-engine": self.single_engine,
            "--no-check-memory": not self.check_memory,
        }
        for option in (name for name, given in of_engines.items() if given and self.engine == "ort"):
            raise UserError(f"expected {option} with --engine trt, found --engine ort; change one of them")

    def _check_quantization(self, quantization: Quantization) -> None:
        if self.weights != "auto":
            raise UserError(
                f"expected no --weights {self.weights} with --quantize, which writes every weight anew, found it; "
                "leave one of them out"
            )
        if (quantization.bits == 8) != (quantization.block_size is None):
            raise UserError(
                "expected a block size with 4 bits, and none with 8, found "
                f"{quantization.block_size} with {quantization.bits}; change one of them"
            )
        if quantization.bits == 8 and self.engine == "trt":
            raise UserError(
                "expected --quantize int4 with --engine trt, which takes 8-bit weights only beside activations "
                "rounded by scales known in advance, found int8; use int4, or --engine ort"
            )

    def _check_choices(self) -> None:
        known = {"dtype": (None, *get_args(Dtype)), "weights": get_args(Weights), "engine": get_args(Engine)}
        for name, choices in known.items():
            if (found := getattr(self, name)) not in choices:
                raise UserError(
                    f"expected --{name} {' or '.join(filter(None, choices))}, found {found}; change it"
                )
