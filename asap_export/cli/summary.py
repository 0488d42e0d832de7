"""What an export says when it is done."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from asap_export.bundle import Bundle, EngineInfo
from asap_export.cli.tables import print_tables
from asap_export.pruning.flops import DecoderShape, paper_flops
from asap_export.report import bundle_facts, limits_text

if TYPE_CHECKING:  # it imports torch
    from asap_export.graph.write import Written

__all__ = ["print_summary"]


def print_summary(
    bundle: Bundle,
    placed: Mapping[str, str],
    written: "Written",
    template_refused: str | None = None,
    tokenizer_refused: str | None = None,
    passes_refused: str | None = None,
) -> None:
    """Print what the bundle is and what to do next; ``placed`` says how each file came into it, ``written`` which
    weights were quantized, ``template_refused`` why the chat template is not in the manifest, where it is not,
    ``tokenizer_refused`` why the C++ runtime does not read the tokenizer, where it does not, ``passes_refused``
    which passes the decoder for the CPU goes without and why, where it does."""
    facts = bundle_facts(bundle)
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = [*_rows(bundle, facts, placed), *_quantized(bundle, written)]
    if template_refused is not None:
        rows.append(
            ("prompts", f"programs without Python write them whole: the chat template {template_refused}")
        )
    if tokenizer_refused is not None:
        rows.append(("tokenizer", f"the C++ runtime takes token ids only: {tokenizer_refused}"))
    if passes_refused is not None:
        rows.append(("CPU", f"the decoder goes {passes_refused}"))
    for name, said in rows:
        table.add_row(Text(name, style="bold"), Text(said))
    print_tables(table)
    path = shlex.quote(_place(bundle))
    # Outside of the table, which would wrap what is to be copied.
    print(f"\nnext: asap-export verify {path}")
    print(f'      asap-export run {path} --image FILE --prompt "What is in the image?"')


def _rows(bundle: Bundle, facts: dict[str, Any], placed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    manifest = bundle.manifest
    yield "bundle", f"{_place(bundle)}, {manifest.dtype}, {decimal(facts['total_size'])}"
    yield "budget", _budget(bundle, facts["budget"])
    yield "limits", limits_text(facts["limits"])
    sizes = {name: file.size for name, file in manifest.files.items()}
    by_way: dict[str, list[int]] = {}
    for name, size in sizes.items():
        by_way.setdefault(placed.get(name, "written"), []).append(size)
    yield "files", ", ".join(f"{len(of)} {way} ({decimal(sum(of))})" for way, of in sorted(by_way.items()))
    label = "engines"
    for engine in manifest.engines:
        name = engine.graph if engine.part is None else f"{engine.graph}.{engine.part.number}"
        said = [f"{name} {decimal(sizes[engine.file])}"]
        if engine.part is not None:
            said.append("layers {} to {}".format(*engine.part.layers))
        if len(engine.profiles) > 1:
            said.append("profiles " + " and ".join(profile.name for profile in engine.profiles))
        if engine.decomposed_attention:
            said.append(f"{len(engine.decomposed_attention)} attention layers without a dedicated kernel")
        yield label, ", ".join(said)
        label = ""
    for made in {_made(engine) for engine in manifest.engines}:
        yield "", made


def _quantized(bundle: Bundle, written: "Written") -> Iterator[tuple[str, str]]:
    """Which weights have 4 bits, and which do not and why."""
    manifest = bundle.manifest
    if manifest.quantization is None:
        return
    kinds = Counter(name.removesuffix(".weight").rpartition(".")[2] for name in written.quantized)
    listed = ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in kinds.items())
    yield "int4", f"{listed or 'no layer'}: blocks of {manifest.quantization.block_size}, symmetric"
    yield f"{manifest.dtype} stay", "token embedding, norms, biases, vision tower, projector"
    for reason, count in Counter(written.unquantized.values()).items():
        names = [name for name, why in written.unquantized.items() if why == reason]
        more = f" and {count - 1} like it" if count > 1 else ""
        yield "", f"{names[0]}{more}: {reason}"


def _place(bundle: Bundle) -> str:
    """The bundle's path as one would type it here."""
    here = Path.cwd()
    return str(bundle.path.relative_to(here) if bundle.path.is_relative_to(here) else bundle.path)


def _made(engine: EngineInfo) -> str:
    targets = ", ".join(engine.compute_capabilities)
    return f"by {engine.flavour} {engine.tensorrt_version} for compute capability {targets}"


def _budget(bundle: Bundle, budget: dict[str, Any]) -> str:
    manifest = bundle.manifest
    visual, keep, after = budget["visual_tokens"], budget["keep_at_most"], manifest.pruning.prune_after
    if not manifest.pruning.prunes:
        return f"dense: all of at most {visual:,} visual tokens of an image"
    shape = DecoderShape.of(manifest.model)
    part = paper_flops(shape, visual, keep, after) / paper_flops(shape, visual, visual, after)
    return (
        f"{keep:,} of at most {visual:,} visual tokens of an image, {budget['layer_average_at_most']:,.1f} "
        f"on average over {shape.layers} layers, {part:.1%} of the dense FLOPs"
    )
