"""Pass ``blockwise-soft-mask``: the scoring layer's attention never sees SG-BiMask as a whole.

AsapMask writes a float for every pair of new tokens, and the attention beside it holds such a matrix for every
head. Row by row the mask is two short vectors, so attention in blocks of rows makes each piece where it is used.
"""

from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import RewriteRule

from asap_export.graph.cpu.functions import CPU_DOMAIN, call
from asap_export.graph.cpu.layer import layer_of
from asap_export.graph.cpu.rows import producer_of, take_over
from asap_export.graph.cpu.stages import Stages, is_soft, valid_of
from asap_export.graph.operators import DOMAIN

__all__ = ["soft_mask_in_blocks"]


def soft_mask_in_blocks(model: ir.Model) -> None:
    """Replace AsapMask and the Attention under it by SoftMaskedAttention; one row of a score gets its own."""
    graph = model.graph
    stages = Stages(graph)
    _score_by_the_last_row(model)
    for node in [node for node in graph if node.op_type == "AsapScore"]:
        bias = node.inputs[2]
        assert bias is not None
        if is_soft(bias):
            _score_in_blocks(graph, node, stages, bias)
    for node in [node for node in graph if node.op_type == "Attention"]:
        mask = node.inputs[3]
        assert mask is not None
        if is_soft(mask):
            _attend_in_blocks(graph, node, stages, mask)


def _attend_in_blocks(graph: ir.Graph, attention: ir.Node, stages: Stages, mask: ir.Value) -> None:
    source = _source(mask)
    visual, valid = source.inputs[2:4]
    assert visual is not None and valid is not None
    layer = layer_of(attention)
    inputs = [*layer.inputs(), visual, valid, *stages.of(attention, valid, visual)]
    node = call("SoftMaskedAttention", inputs, layer.settings() | _settings(source), 5)
    layer.replace(graph, node)
    for old, new in zip(source.outputs[1:], node.outputs[3:], strict=True):
        take_over(old, new)


def _score_in_blocks(graph: ir.Graph, score: ir.Node, stages: Stages, bias: ir.Value) -> None:
    """Where many rows count (``received``, ``text``), their biases are made block by block, too."""
    source = _source(bias)
    query, key, _, row_weight = score.inputs
    visual, valid = source.inputs[2:4]
    assert visual is not None and valid is not None
    plain = stages.of(score, valid, visual).plain
    node = call("ScoreInBlocks", [query, key, visual, valid, row_weight, plain], _settings(source))
    graph.insert_before(score, node)
    take_over(score.outputs[0], node.outputs[0])


def _source(mask: ir.Value | None) -> ir.Node:
    """The AsapMask behind a mask."""
    node = producer_of(mask)
    return _source(node.inputs[0]) if node.op_type == "Cast" else node


def _settings(mask: ir.Node) -> dict[str, float]:
    return {name: mask.attributes[name].as_float() for name in ("lambda_max", "scale")}


def _score_by_the_last_row(model: ir.Model) -> None:
    """Where one row decides (the score ``last``), its bias is made alone instead of taken out of the whole, and no
    loop over heads is needed to keep it small."""
    visual = next((value for value in model.graph.inputs if value.name == "visual_mask"), None)

    def of_one_row(
        op: Any, query: Any, key: Any, whole: Any, batch: Any, last: Any, axes: Any, weight: Any
    ) -> Any:
        place = op.Concat(batch, op.Unsqueeze(last, axes), axis=-1)
        row = op.GatherND(op.Transpose(whole, perm=[0, 2, 1, 3]), place)
        return op.AsapScore(
            query, key, op.Transpose(row, perm=[0, 2, 1, 3]), weight, _domain=DOMAIN, _outputs=["score"]
        )

    def by_one_row(
        op: Any, query: Any, key: Any, whole: Any, last: Any, weight: Any, score: Any, **_: Any
    ) -> Any:
        bias = op.LastRowBias(valid_of(whole), visual, last, _domain=CPU_DOMAIN)
        scale = score.producer().attributes["scale"].as_float()
        return op.LastRowScore(query, key, bias, weight, scale=scale, _domain=CPU_DOMAIN)

    RewriteRule(of_one_row, by_one_row, remove_nodes=False).apply_to_model(model)
