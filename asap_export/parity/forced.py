"""The decoder, altered to be looked into, in ONNX Runtime on the CPU.

Without its cut: what survives is an input, so that later layers are compared alone. With its cut laid open: what
the pruning nodes are given is an output, so that a choice within rounding excuses no wrong score.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from asap_export.graph.cpu import lower_for_cpu
from asap_export.graph.operators import DOMAIN
from asap_export.parity.recording import Array
from asap_export.parity.verdict import Group
from asap_export.runtime.cache import CacheForm
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.spec import CpuPass

__all__ = ["DecoderForm", "ForcedDecoder", "ProbedDecoder", "StoredGraph"]


class StoredGraph(NamedTuple):
    """A graph, and the folder in which its weights lie; the graph itself need not be a file."""

    model: onnx.ModelProto
    folder: Path

    def open(self, provider: str = "cpu") -> OnnxRuntimeSession:
        """A session that reads the weights where they are."""
        content = self.model.SerializeToString()
        return OnnxRuntimeSession(content, provider, weights=self.folder, fold_constants=False)


class DecoderForm(NamedTuple):
    """A decoder to compare: ``decoder.onnx``, of the group "graphs", or what ``passes`` made of it, "cpu"."""

    group: Group
    stored: StoredGraph
    canonical: StoredGraph
    passes: tuple[CpuPass, ...] = ()
    rounds: bool = False  # in the bundle it also rounds activations to 8 bits

    def open(self, provider: str = "cpu") -> OnnxRuntimeSession:
        """A session on the form as it is stored."""
        return self.stored.open(provider)

    def open_altered(self, model: ir.Model) -> OnnxRuntimeSession:
        """A session on this form of a ``decoder.onnx`` whose cut was altered, and so is no whole one to skip."""
        lower_for_cpu(model, [name for name in self.passes if name != "skipped-cut"])
        return StoredGraph(ir.to_proto(model), self.canonical.folder).open()

    def caches(self) -> CacheForm:
        """What this form does with its caches."""
        inputs, outputs = (
            [(value.name, [dim.dim_param for dim in value.type.tensor_type.shape.dim]) for value in values]
            for values in (self.stored.model.graph.input, self.stored.model.graph.output)
        )
        return CacheForm.of(inputs, outputs)


class ForcedDecoder:
    """A decoder with the outputs of its last pruning node fed from outside."""

    def __init__(self, form: DecoderForm) -> None:
        model = ir.from_proto(form.canonical.model)
        pruning_nodes = [node for node in model.graph if node.domain == DOMAIN]
        self._forced = [str(value.name) for value in _force(model.graph, pruning_nodes[-1])]
        self._inputs = {str(value.name) for value in model.graph.inputs}
        self._outputs = [str(value.name) for value in model.graph.outputs]
        self._session = form.open_altered(model)

    def run(self, feeds: Mapping[str, Array], hidden: Array, index: Array) -> dict[str, Array]:
        """All outputs but kept_index, given the reference's survivors: hidden [B, K, D], index [B, K] int64."""
        forced = dict(zip(self._forced, (hidden, index) if len(self._forced) == 2 else (index,), strict=True))
        given = {name: value for name, value in (*feeds.items(), *forced.items()) if name in self._inputs}
        return self._session.run(given, on_host=self._outputs)


class ProbedDecoder:
    """A decoder up to its cut, with the numbers that its choices hang on as outputs."""

    def __init__(self, form: DecoderForm) -> None:
        model = ir.from_proto(form.canonical.model)
        nodes = {node.op_type: node for node in model.graph if node.domain == DOMAIN}
        probed = {"score": nodes["AsapTopK"].inputs[0]}
        if "AsapMerge" in nodes:
            hidden, _, _, salience, mass = nodes["AsapMerge"].inputs
            probed |= {"hidden": hidden, "salience": salience, "mass": mass}
        self._probes = {name: str(value.name) for name, value in probed.items() if value is not None}
        graph = model.graph
        graph.outputs.clear()
        graph.outputs.extend({value.name: value for value in probed.values() if value is not None}.values())
        # Only now are the layers behind the cut unused, and their weights never read.
        common.RemoveUnusedNodesPass()(model)
        self._inputs = {str(value.name) for value in graph.inputs}
        self._session = form.open_altered(model)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """score, salience, mass: [B, T] float32; hidden: [B, T, D]; the last three where the graph merges."""
        given = {name: value for name, value in feeds.items() if name in self._inputs}
        found = self._session.run(given, on_host=tuple(self._probes.values()))
        return {name: found[value] for name, value in self._probes.items()}


def _force(graph: ir.Graph, node: ir.Node) -> list[ir.Value]:
    """Put inputs in the place of a pruning node's outputs: (hidden, index) of AsapMerge, index of AsapTopK."""
    kept = [value for value in graph.outputs if value.name != "kept_index"]
    graph.outputs.clear()
    graph.outputs.extend(kept)
    inputs = []
    for number, output in enumerate(node.outputs[:2]):
        replacement = ir.Value(name=f"forced_{number}", type=output.type, shape=output.shape)
        ir.convenience.replace_all_uses_with(output, replacement)
        inputs.append(replacement)
    graph.inputs.extend(inputs)
    graph.remove(node, safe=True)
    return inputs
