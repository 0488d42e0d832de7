"""Pass ``skipped-cut``: where nothing can be cut, as in every decode step, the pruning nodes do not run.

Scoring, selection and merging stand behind an If, whose other branch hands on what it is given. Where there is a
cut, the early caches are taken head by head: turning whole caches around for a few rows of them costs more than
all selection.
"""

from collections.abc import Iterable
from typing import NamedTuple

import onnx_ir as ir

from asap_export.graph.cpu.functions import CPU_DOMAIN, call
from asap_export.graph.cpu.rows import take_over
from asap_export.graph.operators import DOMAIN

__all__ = ["skip_cut"]

# Where the branch begins: what layers compute is handed to it.
_LAYERS = {"MatMul", "MatMulNBits", "Add", "RMSNormalization", "RotaryEmbedding", "Attention", "AsapMask"}


def skip_cut(model: ir.Model) -> None:
    """Put the cut behind an If; nothing where the decoder is dense."""
    graph = model.graph
    last = next((node for node in reversed(graph) if node.domain == DOMAIN), None)
    if last is None:
        return
    visual, kept_length = (_named(graph.inputs, name) for name in ("visual_mask", "kept_length"))
    kept = _named(graph.outputs, "kept_index")
    before, after = _hidden(graph, last)
    trims = _trims(graph)
    cut, uncut = _Branch("cut"), _Branch("uncut")
    inner_kept = cut.copy(kept)
    cut.outputs += [cut.copy(after), inner_kept]
    uncut.outputs += [
        uncut.add(ir.node("Identity", [before])),
        uncut.add(call("EveryPosition", [visual])),
    ]
    for trim in trims:
        cut.outputs.append(cut.add(call("TrimmedCache", [trim.past, trim.whole, inner_kept])))
        uncut.outputs.append(uncut.add(ir.node("Identity", [trim.whole])))
    condition = call("Cuts", [visual, kept_length])
    branches = {
        "then_branch": ir.AttrGraph("then_branch", cut.graph()),
        "else_branch": ir.AttrGraph("else_branch", uncut.graph()),
    }
    choice = ir.Node(
        "", "If", condition.outputs, tuple(branches.values()), num_outputs=len(cut.outputs), name="Asap.cut"
    )
    graph.extend([condition, choice])
    for old, new in zip((after, kept, *(trim.trimmed for trim in trims)), choice.outputs, strict=True):
        take_over(old, new)
    topk = next(
        node for node in graph if node.op_type == "AsapTopK"
    )  # its length is asked for behind the cut
    ir.convenience.replace_all_uses_with(topk.outputs[0], choice.outputs[1])
    graph.sort()


class _Branch:
    """A subgraph in the making, of new nodes and of copies."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[ir.Node] = []
        self._copies: dict[ir.Value, ir.Value] = {}
        self.outputs: list[ir.Value] = []

    def add(self, node: ir.Node) -> ir.Value:
        """The output of a new node."""
        self._nodes.append(node)
        return node.outputs[0]

    def copy(self, value: ir.Value) -> ir.Value:
        """The value, computed here, from what the layers and the graph's inputs give."""
        node = value.producer()
        if node is None or node.op_type in _LAYERS or (node.domain == CPU_DOMAIN and _is_layer(node)):
            return value
        if value not in self._copies:
            inputs = [None if source is None else self.copy(source) for source in node.inputs]
            twin = ir.Node(
                node.domain,
                node.op_type,
                inputs,
                list(node.attributes.values()),
                num_outputs=len(node.outputs),
                name=node.name,
            )
            self._nodes.append(twin)
            for old, new in zip(node.outputs, twin.outputs, strict=True):
                new.shape, new.type = old.shape, old.type
                self._copies[old] = new
        return self._copies[value]

    def graph(self) -> ir.Graph:
        return ir.Graph([], self.outputs, nodes=self._nodes, name=self._name)


def _is_layer(node: ir.Node) -> bool:
    return node.op_type not in ("LastRowBias", "ScoreInBlocks")


class _Trim(NamedTuple):
    """A cache of a layer before the cut, a graph output ``trimmed``.

    past: [B, Hkv, P, d]; whole: [B, Hkv, P+T, d].
    """

    trimmed: ir.Value
    past: ir.Value
    whole: ir.Value


def _trims(graph: ir.Graph) -> list[_Trim]:
    """The caches that are trimmed on their way out: a slice of the past, and new tokens that were taken."""
    trims = []
    for value in graph.outputs:
        concat = value.producer()
        if concat is None or concat.op_type != "Concat":
            continue
        first = concat.inputs[0]
        piece = first.producer() if first is not None else None
        if piece is None or piece.op_type != "Slice":
            continue
        whole, name = piece.inputs[0], str(value.name).replace("present", "past_key_values")
        past = _named(graph.inputs, name)
        assert whole is not None
        trims.append(_Trim(value, past, whole))
    return trims


def _hidden(graph: ir.Graph, last: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Hidden states before and after the cut; ``last`` is the last pruning node."""
    before: ir.Value | None
    after: ir.Value | None
    if last.op_type == "AsapMerge":
        before, after = last.inputs[0], last.outputs[0]
    else:
        nodes = list(graph)
        norm = next(node for node in nodes[nodes.index(last) :] if node.op_type == "RMSNormalization")
        after = norm.inputs[0]
        before = after.producer().inputs[0]  # type: ignore[union-attr]  # GatherND
    assert before is not None and after is not None
    return before, after


def _named(values: Iterable[ir.Value], name: str) -> ir.Value:
    return next(value for value in values if value.name == name)
