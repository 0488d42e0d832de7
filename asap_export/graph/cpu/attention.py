"""Pass ``fused-attention``: causal attention layers are one fused operator that also appends to the cache.

The Attention of ONNX Runtime's CPU provider holds all scores of all heads, and the cache is concatenated before it
at every step. Its GroupQueryAttention works in tiles, skips what the causal mask closes, and writes the new tokens
behind the cached ones, in place where the caller binds the same buffer as past and as present.
"""

import onnx_ir as ir

from asap_export.graph.cpu.capacity import CAPACITY, appends_in_place, open_caches
from asap_export.graph.cpu.functions import call
from asap_export.graph.cpu.layer import Layer, layer_of
from asap_export.graph.cpu.stages import Stages, is_soft, valid_of

__all__ = ["fuse_attention"]


def fuse_attention(model: ir.Model) -> None:
    """Replace every Attention node whose mask is causal by CausalAttention.

    Raises ValueError where the graph is none of ours.
    """
    graph = model.graph
    stages = Stages(graph)
    fused: list[tuple[Layer, ir.Value]] = []
    for node in [node for node in graph if node.op_type == "Attention"]:
        mask = node.inputs[3]
        assert mask is not None
        if not is_soft(mask):
            valid = valid_of(mask)
            layer = layer_of(node)
            shared = stages.of(node, valid, layer.query)
            layer.replace(graph, call("CausalAttention", [*layer.inputs(), *shared], layer.settings(), 3))
            fused.append((layer, valid))
    _open_last_stage(graph, [layer for layer, valid in fused if valid is fused[-1][1]])


def _open_last_stage(graph: ir.Graph, layers: list[Layer]) -> None:
    """Let the last stage's caches be longer than their content, where they leave the graph as they are."""
    outputs = {value.name: value for value in graph.outputs}
    opened: list[ir.Value] = []
    for layer in layers:
        for past in (layer.keys.inputs[0], layer.values.inputs[0]):
            assert past is not None and past.name is not None
            present = outputs.get(past.name.replace("past_key_values", "present"))
            if present is None or not appends_in_place(present):
                continue  # trimmed on its way out
            assert present.shape is not None
            present.shape = ir.Shape([*present.shape[:2], CAPACITY, present.shape[3]])
            opened.append(past)
    open_caches(graph, opened)
