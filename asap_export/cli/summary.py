"""What an export says: its plan, and what it has made."""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from asap_export.bundle import Bundle, EngineInfo, Manifest
from asap_export.cli.tables import print_json, print_tables
from asap_export.cli.verbosity import is_quiet, is_verbose
from asap_export.cuda import compute_capabilities
from asap_export.report import bundle_facts, limits_text, saving_facts, saving_table

if TYPE_CHECKING:  # they import torch
    from asap_export.exporter import Exported, ExportPlan

__all__ = ["print_exported", "print_plan"]

_WIDTH = 80
_NO_DEVICE = "no CUDA device here"


def print_plan(plan: "ExportPlan", as_json: bool = False) -> None:
    """Print what would be done."""
    saving = saving_facts(plan.source, plan.model, plan.pruning, plan.budget, plan.dtype)
    if as_json:
        print_json(plan.facts() | {"saving": saving})
        return
    print_tables(Group(_table(_planned(plan)), Text(""), saving_table(saving)), _WIDTH)
    if not is_quiet():
        print("\nnothing is written; the same command without --plan does it")


def print_exported(exported: "Exported", as_json: bool = False) -> None:
    """Print what the bundle is, what it prunes, what of it runs where, and what to do next."""
    plan, bundle = exported.plan, exported.bundle
    saving = saving_facts(plan.source, plan.model, plan.pruning, plan.budget, plan.dtype)
    if as_json:
        print_json(bundle_facts(bundle) | {"saving": saving, "missing": plan.missing})
        return
    if is_quiet():
        print(_place(bundle.path))
        return
    rows = [*_runs(bundle), *_quantized(exported), *plan.missing.items()]
    if is_verbose():
        rows += [("limits", limits_text(bundle_facts(bundle)["limits"])), ("files", _files(exported))]
    size = decimal(sum(file.size for file in bundle.manifest.files.values()))
    head = Text.assemble((_place(bundle.path), "bold"), f", {plan.dtype}, {size}")
    print_tables(Group(head, Text(""), saving_table(saving), Text(""), _table(rows)), _WIDTH)
    path = shlex.quote(_place(bundle.path))
    # Outside of the tables, which would wrap what is to be copied.
    print(f"\nnext: asap-export verify {path}")
    print(f'      asap-export run {path} --image FILE --prompt "What is in the image?"')


def _table(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, said in rows:
        table.add_row(Text(name, style="bold"), Text(said))
    return table


def _planned(plan: "ExportPlan") -> Iterator[tuple[str, str]]:
    model, weights = plan.model, plan.weights
    at = f" at {plan.revision[:12]}" if plan.revision else ""
    yield "checkpoint", f"{plan.source}{at}: {model.architecture}, {model.text_model_type}, {model.dtype}"
    yield "bundle", f"{_place(plan.output)}, {plan.dtype}"
    shards = f"{len(weights.shards)} {'linked' if weights.way == 'link' else 'copied'}"
    yield "weights", f"files {shards}, tensors written anew {weights.written_anew}"
    if plan.quantize_as:
        quantization = plan.quantize_as.quantization
        yield quantization.name, f"the decoder's linear layers, {quantization.scales}"
    yield "disk", f"at least {decimal(plan.disk)}"
    yield "limits", limits_text(vars(plan.limits))
    yield "CPU form", ", ".join(plan.cpu_passes) or "none"
    if engines := plan.engines:
        capabilities = ", ".join(engines.compute_capabilities)
        yield "engines", f"by {engines.flavor} for compute capability {capabilities}"
        for name, peak in engines.memory.items():
            yield "", f"{name}: about {decimal(peak)} of memory to build"
    yield from plan.missing.items()


def _runs(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """What of the bundle runs on which device, and what was only built."""
    manifest, device = bundle.manifest, bool(compute_capabilities())
    on_cpu = "decoder.cpu.onnx" if manifest.cpu_decoder else "decoder.onnx"
    if manifest.dtype == "bf16":
        yield "CPUs", "not in bf16, which ONNX Runtime has no CPU operators for"
    else:
        yield "CPUs", f"{on_cpu}, with ONNX Runtime"
    on_cuda = "decoder.cuda.onnx" if manifest.cuda_decoder else "decoder.onnx"
    yield "GPUs", f"{on_cuda}, with ONNX Runtime's CUDA provider" + ("" if device else f"; {_NO_DEVICE}")
    if not manifest.engines:
        return
    state = "built, not run yet" if device else f"built, not run: {_NO_DEVICE}"
    yield "engines", f"{state}; {_size(bundle, manifest.engines)}"
    for made in sorted({_made(engine) for engine in manifest.engines}):
        yield "", made
    yield "", _kernels(manifest)
    if is_verbose():
        for engine in manifest.engines:
            yield "", _engine(bundle, engine)


def _made(engine: EngineInfo) -> str:
    targets = ", ".join(engine.compute_capabilities)
    return f"by {engine.flavor} {engine.tensorrt_version} for compute capability {targets}"


def _kernels(manifest: Manifest) -> str:
    """How many attention layers TensorRT makes of products and a softmax, and why."""
    slow = sum(len(engine.decomposed_attention) for engine in manifest.engines)
    said = f"{slow} attention layers without a dedicated kernel"
    if not slow:
        return said
    if manifest.dtype == "fp32":
        return f"{said}; fp32 has none"
    one = all(engine.part is None for engine in manifest.engines)
    return f"{said} ({'single engine' if one else 'head size'})"


def _engine(bundle: Bundle, engine: EngineInfo) -> str:
    name = Path(engine.file).name.removesuffix(f".{engine.flavor}.engine")
    said = [f"{name} {_size(bundle, [engine])}"]
    if engine.part is not None:
        said.append("layers {} to {}".format(*engine.part.layers))
    if len(engine.profiles) > 1:
        said.append("profiles " + " and ".join(profile.name for profile in engine.profiles))
    return ", ".join(said)


def _size(bundle: Bundle, engines: Iterable[EngineInfo]) -> str:
    return decimal(sum(bundle.manifest.files[engine.file].size for engine in engines))


def _files(exported: "Exported") -> str:
    by_way: dict[str, list[int]] = {}
    for name, file in exported.bundle.manifest.files.items():
        by_way.setdefault(exported.placed.get(name, "written"), []).append(file.size)
    return ", ".join(f"{len(of)} {way} ({decimal(sum(of))})" for way, of in sorted(by_way.items()))


def _quantized(exported: "Exported") -> Iterator[tuple[str, str]]:
    """Which weights have 4 or 8 bits, and which do not and why."""
    manifest, written = exported.bundle.manifest, exported.written
    if manifest.quantization is None:
        return
    kinds = Counter(name.removesuffix(".weight").rpartition(".")[2] for name in written.quantized)
    listed = ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in kinds.items())
    yield manifest.quantization.name, f"{listed or 'no layer'}: {manifest.quantization.scales}, symmetric"
    yield f"{manifest.dtype} stay", "token embedding, norms, biases, vision tower, projector"
    for reason, count in Counter(written.unquantized.values()).items():
        names = [name for name, why in written.unquantized.items() if why == reason]
        more = f" and {count - 1} like it" if count > 1 else ""
        yield "", f"{names[0]}{more}: {reason}"


def _place(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
