"""Pass ``skipped-cut``: where nothing can be cut, as in every decode step, the pruning nodes do not run.

Scoring, selection and merging stand behind an If, whose other branch hands on what it is given. Caches of the
layers before the cut leave the graph with the tokens that were cut, and the caller drops those: whatever stood
between such a cache and its output, it would be copied at every step.
"""

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from asap_export.graph.cpu.capacity import UNTRIMMED, appends_in_place, open_caches
from asap_export.graph.cpu.functions import CPU_DOMAIN, call
from asap_export.graph.cpu.rows import producer_of, take_over
from asap_export.graph.cpu.stages import is_soft
from asap_export.graph.operators import DOMAIN

__all__ = ["leave_cut_out", "put_behind_if", "skip_cut", "trimmed_caches"]

_SCORES = ("LastRowBias", "LastRowScore", "ScoreInBlocks")
# Where the branch begins: what layers compute is handed to it.
_LAYERS = {"MatMul", "MatMulNBits", "Add", "RMSNormalization", "RotaryEmbedding", "Attention"}


def skip_cut(model: ir.Model) -> None:
    """Put the cut behind an If; nothing where the decoder is dense."""
    if any(node.domain == DOMAIN for node in model.graph):
        _leave_untrimmed(model.graph)
        put_behind_if(model.graph)


def put_behind_if(graph: ir.Graph, trimmed: Sequence[tuple[ir.Value, ir.Value]] = ()) -> None:
    """Put the cut of a decoder that has one behind an If, and with it outputs ``trimmed`` by the cut, each beside
    what it is where nothing is cut."""
    last = next(node for node in reversed(graph) if node.domain == DOMAIN)
    visual, kept_length = (_named(graph.inputs, name) for name in ("visual_mask", "kept_length"))
    kept = _named(graph.outputs, "kept_index")
    before, after = _hidden(graph, last)
    cut, uncut = _Branch("cut"), _Branch("uncut")
    cut.outputs += [cut.copy(value) for value in (after, kept, *(short for short, _ in trimmed))]
    uncut.outputs += [
        uncut.add(ir.node("Identity", [before])),
        uncut.add(call("EveryPosition", [visual])),
        *(uncut.add(ir.node("Identity", [whole])) for _, whole in trimmed),
    ]
    condition = call("Cuts", [visual, kept_length])
    branches = {
        "then_branch": ir.AttrGraph("then_branch", cut.graph()),
        "else_branch": ir.AttrGraph("else_branch", uncut.graph()),
    }
    choice = ir.Node(
        "", "If", condition.outputs, tuple(branches.values()), num_outputs=len(cut.outputs), name="Asap.cut"
    )
    graph.extend([condition, choice])
    taken = (after, kept, *(short for short, _ in trimmed))
    for old, new in zip(taken, choice.outputs, strict=True):
        take_over(old, new)
    topk = next(
        node for node in graph if node.op_type == "AsapTopK"
    )  # its length is asked for behind the cut
    ir.convenience.replace_all_uses_with(topk.outputs[0], choice.outputs[1])
    graph.sort()


def leave_cut_out(graph: ir.Graph) -> None:
    """Make of a decoder that cuts what it computes where no token is visual and none is cut, as in steps."""
    last = next(node for node in reversed(graph) if node.domain == DOMAIN)
    before, after = _hidden(graph, last)
    every = call("EveryPosition", [_named(graph.inputs, "visual_mask")])
    graph.append(every)
    take_over(_named(graph.outputs, "kept_index"), every.outputs[0])
    for short, whole in trimmed_caches(graph):
        take_over(short, whole)
    take_over(after, before)
    masks = [node.inputs[3] for node in graph if node.op_type == "Attention"]
    causal = next((mask for mask in masks if mask is not None and not is_soft(mask)), None)
    for node in graph:
        if causal is not None and node.op_type == "Attention":  # SG-BiMask is causal there
            node.replace_input_with(3, causal)
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
        if node is None or _is_layer(node):
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
    if node.domain == CPU_DOMAIN:
        return node.op_type not in _SCORES
    if node.op_type == "Concat":  # of a cache and new keys or values
        return any(user.op_type == "Attention" for user, _ in node.outputs[0].uses())
    return node.op_type in _LAYERS or (node.op_type == "AsapMask" and _masks_attention(node.outputs[0]))


def _masks_attention(bias: ir.Value) -> bool:
    """Whether a layer attends under this SG-BiMask, so that it is no part of the cut."""
    users = [user for user, _ in bias.uses()]
    return any(
        user.op_type == "Attention" or (user.op_type == "Cast" and _masks_attention(user.outputs[0]))
        for user in users
    )


def trimmed_caches(graph: ir.Graph) -> list[tuple[ir.Value, ir.Value]]:
    """Outputs that the cut has trimmed, each with what it was before."""
    found = ((value, _whole(value)) for value in graph.outputs)
    return [(value, whole) for value, whole in found if whole is not None]


def _leave_untrimmed(graph: ir.Graph) -> None:
    """Let caches that are trimmed on their way out leave as they are, and be longer than their content."""
    opened = []
    for value, whole in trimmed_caches(graph):
        if value.shape is None:
            continue
        past = _named(graph.inputs, str(value.name).replace("present", "past_key_values"))
        take_over(value, whole)
        whole.shape = ir.Shape([*value.shape[:2], UNTRIMMED, value.shape[3]])
        if appends_in_place(whole):
            opened.append(past)
    open_caches(graph, opened)


def _whole(present: ir.Value) -> ir.Value | None:
    """The cache [B, Hkv, P+T, d] of which an output has the old tokens and some of the new; None elsewhere."""
    concat = present.producer()
    if concat is None or concat.op_type != "Concat":
        return None
    first = concat.inputs[0]
    piece = first.producer() if first is not None else None
    return piece.inputs[0] if piece is not None and piece.op_type == "Slice" else None


def _hidden(graph: ir.Graph, last: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Hidden states before and after the cut; ``last`` is the last pruning node."""
    before: ir.Value | None
    after: ir.Value | None
    if last.op_type == "AsapMerge":
        before, after = last.inputs[0], last.outputs[0]
    else:
        nodes = list(graph)
        behind = (node for node in nodes[nodes.index(last) :] if node.op_type == "RMSNormalization")
        norm = next(behind, None)  # none in a part that ends with the cut
        after = norm.inputs[0] if norm is not None else _handed_on(graph)
        before = producer_of(after).inputs[0]  # of the GatherND
    assert before is not None and after is not None
    return before, after


def _handed_on(graph: ir.Graph) -> ir.Value:
    return next(value for value in graph.outputs if str(value.name).startswith("hidden_states."))


def _named(values: Iterable[ir.Value], name: str) -> ir.Value:
    return next(value for value in values if value.name == name)
