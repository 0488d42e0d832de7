"""Every ``ai.asap`` node of a bundle, alone, against the PyTorch operator on the inputs of a real cut."""

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper

from asap_export.graph.operators import DOMAIN, OPERATORS
from asap_export.model.decoder import Cut
from asap_export.parity.recording import Array, to_array
from asap_export.parity.verdict import Check, compare
from asap_export.pruning import operators
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.cut import criterion, observe_attention
from asap_export.pruning.scores import row_weight

__all__ = ["OperatorNodes", "as_compared", "expected_nodes"]

# Nodes and reference get the same numbers and both compute in float32: only the order of additions differs, and
# where the result is rounded to fewer bits, it may fall to the other side.
_LIMIT = 1e-4


def expected_nodes(pruning: PruningConfig) -> tuple[str, ...]:
    """The operators that a decoder with this configuration holds, once each."""
    if not pruning.prunes:
        return ()
    present = {
        "AsapMask": pruning.weighs_mass,
        "AsapScore": criterion(pruning) in ("received", "text", "last"),
        "AsapTopK": True,
        "AsapMerge": pruning.method == "asap" and pruning.merge,
    }
    return tuple(name for name in OPERATORS if present[name])


class OperatorNodes:
    """The ``ai.asap`` nodes of one decoder graph, each as a model of its own, with the graph's function bodies.

    ``dtype`` is the graph's.
    """

    def __init__(self, decoder: onnx.ModelProto, pruning: PruningConfig, dtype: torch.dtype) -> None:
        self._model = decoder
        self._pruning, self._dtype = pruning, dtype
        self._nodes = {node.op_type: node for node in self._model.graph.node if node.domain == DOMAIN}
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def check(self, case: str, cut: Cut) -> list[Check]:
        """Compare all nodes on the inputs of one cut."""
        expected = expected_nodes(self._pruning)
        found = tuple(name for name in OPERATORS if name in self._nodes)
        if found != expected:
            detail = f"nodes {', '.join(found) or 'none'}, expected {', '.join(expected)}"
            return [Check("operators", case, "nodes", "FAIL", detail=detail)]
        cut = _as_given(cut, self._dtype, self._pruning)
        return [check for name in expected for check in self._check_node(case, name, cut)]

    def _check_node(self, case: str, name: str, cut: Cut) -> list[Check]:
        inputs, outputs = _reference(name, cut, self._pruning)
        found = self._run(name, inputs, list(outputs))
        checks = []
        for output, expected in outputs.items():
            exact = expected.dtype.kind in "ib"
            limit = 0.0 if exact else _LIMIT + _rounding(expected.dtype)
            visual = to_array(cut.visual_mask)
            ours, theirs = (as_compared(output, values, visual) for values in (found[output], expected))
            checks.append(compare("operators", case, f"{name}.{output}", ours, theirs, limit))
        return checks

    def _run(self, name: str, inputs: Mapping[str, Array], outputs: list[str]) -> dict[str, Array]:
        if name not in self._sessions:
            self._sessions[name] = self._session(name, inputs, outputs)
        values = self._sessions[name].run(None, dict(inputs))
        return dict(zip(outputs, values, strict=True))

    def _session(
        self, name: str, inputs: Mapping[str, Array], outputs: list[str]
    ) -> onnxruntime.InferenceSession:
        node = onnx.NodeProto()
        node.CopyFrom(self._nodes[name])
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
        values = [
            helper.make_tensor_value_info(
                key, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim
            )
            for key, value in inputs.items()
        ]
        results = [onnx.ValueInfoProto(name=output) for output in outputs]
        graph = helper.make_graph([node], name, values, results)
        model = helper.make_model(
            graph,
            functions=self._model.functions,
            opset_imports=self._model.opset_import,
            ir_version=self._model.ir_version,
        )
        return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def as_compared(output: str, values: Array, visual_mask: Array) -> Array:
    """What of a node's output is compared. visual_mask: [B, T] bool."""
    if output in ("mass", "salience"):  # defined on visual tokens only
        return values[visual_mask]
    if output == "bias":
        # A logarithm: where it is near its floor, one rounding of a salience near 0 is a large step of it, and
        # nothing of the weight that an attention is multiplied with.
        weights: Array = np.exp(values)
        return weights
    return values


def _as_given(cut: Cut, dtype: torch.dtype, pruning: PruningConfig) -> Cut:
    """The cut as a graph of ``dtype`` meets it: what its nodes are given is rounded, and seen anew."""
    if cut.hidden.dtype == dtype:
        return cut
    query, key, hidden = cut.query.to(dtype), cut.key.to(dtype), cut.hidden.to(dtype)
    seen = observe_attention(pruning, query, key, cut.visual_mask, cut.attention_mask, cut.scale)
    return cut._replace(query=query, key=key, hidden=hidden, seen=seen)


def _reference(name: str, cut: Cut, pruning: PruningConfig) -> tuple[dict[str, Array], dict[str, Array]]:
    """A node's inputs and the reference's outputs for a cut."""
    seen = cut.seen
    index = operators.topk(seen.score, cut.visual_mask, cut.new_mask, cut.kept_length)
    if name == "AsapMask":
        inputs = {"query": cut.query, "key": cut.key}
        inputs |= {"visual_mask": cut.visual_mask, "attention_mask": cut.attention_mask}
        # Its own bias, which the layer is not given where the mask stays causal.
        masked = operators.mask(*inputs.values(), pruning.lambda_max, cut.scale)
        outputs = dict(zip(("bias", "mass", "salience"), masked, strict=True))
    elif name == "AsapScore":
        weight = row_weight(criterion(pruning), cut.visual_mask, cut.new_mask)
        inputs = {"query": cut.query, "key": cut.key, "bias": seen.bias, "row_weight": weight}
        received = operators.score(cut.query, cut.key, seen.bias, weight, cut.scale)
        outputs = {"received": received}
    elif name == "AsapTopK":
        inputs = {"score": seen.score, "visual_mask": cut.visual_mask}
        inputs |= {"attention_mask": cut.new_mask, "kept_length": cut.kept_length}
        outputs = {"index": index}
    else:
        inputs = {"hidden": cut.hidden, "index": index, "visual_mask": cut.visual_mask}
        inputs |= {"salience": seen.salience, "mass": seen.mass}
        merged = operators.merge(
            cut.hidden, index, cut.visual_mask, seen.salience, seen.mass, pruning.threshold
        )
        outputs = dict(zip(("merged", "kept_index", "absorbed"), merged, strict=True))
    return _arrays(inputs), _arrays(outputs)


def _rounding(dtype: np.dtype[np.generic]) -> float:
    """From 1 to the next larger number of a floating-point type."""
    return float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def _arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, Array]:
    return {name: np.asarray(to_array(tensor)) for name, tensor in tensors.items()}
