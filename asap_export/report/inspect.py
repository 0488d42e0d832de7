"""What a bundle holds, from its manifest alone: no graph is opened."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from asap_export.bundle import Bundle, GenerationInfo
from asap_export.pruning.flops import layer_average
from asap_export.spec import Quantization

__all__ = ["bundle_facts", "bundle_tables", "limits_text"]

_LAYER = re.compile(r"\.(\d+)\.")


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    """The manifest as JSON values, with ``path``, ``total_size`` in bytes, and ``budget`` worked out.

    ``budget`` gains ``visual_tokens`` (the most of one image) and what it comes to there: ``keep_at_most``
    and ``layer_average_at_most``. Files and engines keep their full sha256.
    """
    manifest = bundle.manifest
    facts: dict[str, Any] = {"path": str(bundle.path), **msgspec.to_builtins(manifest)}
    model, after = manifest.model, manifest.pruning.prune_after
    visual = model.max_visual_tokens
    keep = manifest.budget.keep_for(visual, model.layers, after) if manifest.pruning.prunes else visual
    facts["budget"] |= {
        "visual_tokens": visual,
        "keep_at_most": keep,
        "layer_average_at_most": layer_average(visual, keep, model.layers, after),
    }
    facts["total_size"] = sum(file.size for file in manifest.files.values())
    facts["parity"] = bundle.parity_path.is_file()
    return facts


def bundle_tables(facts: dict[str, Any]) -> Group:
    """``bundle_facts`` for a terminal; inputs and outputs that differ only in the layer share a line."""
    parts: list[RenderableType] = [_summary(facts)]
    parts += [Text(""), Text("graphs", style="bold"), _graphs(facts["graphs"])]
    parts += [Text(""), Text("engines", style="bold"), *_engines(facts["engines"])]
    parts += [Text(""), Text(f"files, {_size(facts['total_size'])}", style="bold"), _files(facts["files"])]
    return Group(*parts)


def _summary(facts: dict[str, Any]) -> Table:
    source, model, limits = facts["source"], facts["model"], facts["limits"]
    revision = f" at {source['revision'][:12]}" if source["revision"] else ""
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = {
        "bundle": facts["path"],
        "source": source["id"] + revision,
        "model": f"{model['architecture']}, {model['text_model_type']}, {model['layers']} layers of "
        f"width {model['hidden_size']}, {model['heads']} heads of {model['head_dim']} "
        f"({model['kv_heads']} for keys)",
        "graphs": f"{facts['dtype']}, opset {facts['opset']}{_quantization(facts['quantization'])}",
        "pruning": _pruning(facts["pruning"]),
        "budget": _budget(facts),
        "answers": _generation(facts["generation"]),
        "limits": limits_text(limits),
        "made": f"{facts['created']} with "
        + ", ".join(f"{name} {version}" for name, version in facts["tools"].items()),
        "parity report": "parity.json" if facts["parity"] else "none yet; asap-export verify makes one",
    }
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value))
    return table


def _quantization(quantization: dict[str, Any] | None) -> str:
    if quantization is None:
        return ""
    stated = Quantization(**quantization)
    return f"; linear layers of the decoder {stated.name}, {stated.scales}"


def limits_text(limits: dict[str, int]) -> str:
    """A bundle's or a preset's limits in words."""
    return ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in limits.items())


def _generation(generation: dict[str, Any]) -> str:
    """What differs from greedy answers without limits, and what no answer honours."""
    usual = msgspec.to_builtins(GenerationInfo())
    said = [f"max new tokens {generation['max_new_tokens']:,}"]
    if generation["temperature"] == 0:
        said.append("greedy")
    others = (n for n in usual if n not in ("max_new_tokens", "left_out") and generation[n] != usual[n])
    said += [f"{name.replace('_', ' ')} {_value(generation[name])}" for name in others]
    if generation["left_out"]:
        said.append(f"without {', '.join(generation['left_out'])} of generation_config.json")
    return ", ".join(said)


def _value(value: Any) -> str:
    return " ".join(map(repr, value)) if isinstance(value, list | tuple) else f"{value:g}"


def _pruning(pruning: dict[str, Any]) -> str:
    if pruning["method"] == "none":
        return "none, every token stays"
    caches = "all caches trimmed" if pruning["trim_early_kv"] else "caches before the cut full"
    said = [pruning["method"], f"after {pruning['prune_after']} layers", caches]
    if pruning["method"] == "asap":
        merging = f"merge above cosine {pruning['threshold']:g}" if pruning["merge"] else "no merging"
        mask = f"lambda max {pruning['lambda_max']:g}" if pruning["bidirectional"] else "causal mask"
        said += [f"score {pruning['score']}", mask, merging]
    if pruning["method"] == "random":
        said.append(f"seed {pruning['seed']}")
    return ", ".join(said)


def _budget(facts: dict[str, Any]) -> str:
    budget, layers = facts["budget"], facts["model"]["layers"]
    visual, keep, average = (
        budget[name] for name in ("visual_tokens", "keep_at_most", "layer_average_at_most")
    )
    if facts["pruning"]["method"] == "none":
        return f"all of at most {visual:,} visual tokens per image"
    kept = f"{keep:,} of an image's at most {visual:,} visual tokens"
    return f"{kept}, {average:,.1f} on average over {layers} layers"


def _graphs(graphs: dict[str, Any]) -> Table:
    table = Table("graph", "", "name", "type", "dimensions", box=None, pad_edge=False)
    for graph in graphs.values():
        name = graph["file"]
        for direction in ("inputs", "outputs"):
            said = direction.removesuffix("s")
            tensors = [
                (tensor["name"], (tensor["dtype"], tuple(tensor["dims"]))) for tensor in graph[direction]
            ]
            for label, (dtype, dims) in _over_layers(tensors):
                table.add_row(name, said, Text(label), dtype, " × ".join(map(str, dims)) or "scalar")
                name = said = ""
    return table


def _engines(engines: list[dict[str, Any]]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for engine in engines:
        made = f"{engine['flavor']} {engine['tensorrt_version']}"
        parts.append(f"{engine['file']}, {made}, compute {', '.join(engine['compute_capabilities'])}")
        if part := engine["part"]:
            parts.append(_part(part, engines))
        if decomposed := engine["decomposed_attention"]:
            parts.append(f"attention layers without a dedicated kernel: {len(decomposed)}")
        table = Table("profile", "input", "min", "opt", "max", box=None, pad_edge=False)
        for profile in engine["profiles"]:
            name = profile["name"]
            ranges = [(tensor, _bounds(bounds)) for tensor, bounds in profile["shapes"].items()]
            ranges += [(f"{tensor} (value)", _bounds(bounds)) for tensor, bounds in profile["values"].items()]
            for label, bounds in _over_layers(ranges):
                table.add_row(name, Text(label), *bounds)
                name = ""
        parts.append(table)
    return parts or [Text("none; export with --engine trt to build them")]


def _part(part: dict[str, Any], engines: list[dict[str, Any]]) -> str:
    """Which layers a part holds, and what it takes from other parts."""
    given = {tensor["name"] for each in engines if each["part"] for tensor in each["part"]["outputs"]}
    taken = [(tensor["name"], None) for tensor in part["inputs"] if tensor["name"] in given]
    said = f"part {part['number'] + 1} of {part['of']}, layers {part['layers'][0]} to {part['layers'][1]}"
    return said + "".join(f", takes {label}" for label, _ in _over_layers(taken))


def _bounds(bounds: dict[str, list[int]]) -> tuple[str, ...]:
    return tuple("×".join(map(str, bounds[bound])) or "scalar" for bound in ("min", "opt", "max"))


def _over_layers(named: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """One entry for names that differ only in the layer: "past_key_values.{0..31}.key"."""
    entries: dict[tuple[str, Any], list[str]] = {}
    for name, rest in named:
        found = _LAYER.search(name)
        entries.setdefault((_LAYER.sub(".{}.", name), rest), []).extend(found.groups() if found else ())
    return [(pattern.replace("{}", _span(layers)), rest) for (pattern, rest), layers in entries.items()]


def _span(layers: list[str]) -> str:
    return f"{{{layers[0]}..{layers[-1]}}}" if len(layers) > 1 else "".join(layers)


def _files(files: dict[str, Any]) -> Table:
    table = Table("file", box=None, pad_edge=False)
    table.add_column("size", justify="right")
    table.add_column("sha256")
    for name, file in files.items():
        table.add_row(Text(name), _size(file["size"]), file["sha256"][:16])
    return table


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.2f} GB"
