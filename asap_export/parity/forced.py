"""The decoder, altered to be looked into, in ONNX Runtime on the CPU.

Without its cut: what survives is an input, so that later layers are compared alone. With its cut laid open: what
the pruning nodes are given is an output, so that a choice within rounding excuses no wrong score.
"""

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime

from asap_export.graph.operators import DOMAIN
from asap_export.parity.recording import Array

__all__ = ["ForcedDecoder", "ProbedDecoder"]


class ForcedDecoder:
    """``decoder.onnx`` with the outputs of its last pruning node fed from outside."""

    def __init__(self, decoder: Path) -> None:
        model = ir.from_proto(onnx.load(decoder, load_external_data=False))
        pruning_nodes = [node for node in model.graph if node.domain == DOMAIN]
        self._forced = [str(value.name) for value in _force(model.graph, pruning_nodes[-1])]
        self._session = _session(ir.to_proto(model), decoder.parent)
        self._inputs = {value.name for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Array], hidden: Array, index: Array) -> dict[str, Array]:
        """All outputs but kept_index, given the reference's survivors: hidden [B, K, D], index [B, K] int64."""
        forced = dict(zip(self._forced, (hidden, index) if len(self._forced) == 2 else (index,), strict=True))
        given = {name: value for name, value in (*feeds.items(), *forced.items()) if name in self._inputs}
        return dict(zip(self._outputs, self._session.run(None, given), strict=True))


class ProbedDecoder:
    """``decoder.onnx`` with the numbers that its choices hang on as outputs."""

    def __init__(self, decoder: Path) -> None:
        model = onnx.load(decoder, load_external_data=False)
        nodes = {node.op_type: node for node in model.graph.node if node.domain == DOMAIN}
        self._probes = {"score": nodes["AsapTopK"].input[0]}
        if "AsapMerge" in nodes:
            hidden, _, _, salience, mass = nodes["AsapMerge"].input
            self._probes |= {"hidden": hidden, "salience": salience, "mass": mass}
        given = {value.name for value in model.graph.output}
        model.graph.output.extend(
            onnx.ValueInfoProto(name=name)
            for name in dict.fromkeys(self._probes.values())
            if name not in given
        )
        self._session = _session(model, decoder.parent)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """score, salience, mass: [B, T] float32; hidden: [B, T, D]; the last three where the graph merges."""
        return dict(
            zip(self._probes, self._session.run(list(self._probes.values()), dict(feeds)), strict=True)
        )


def _session(model: onnx.ModelProto, folder: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


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
