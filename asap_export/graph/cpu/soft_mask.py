"""Pass ``blockwise-soft-mask``: the scoring layer's attention never sees SG-BiMask as a whole.

AsapMask writes a float for every pair of new tokens, and the attention beside it holds such a matrix for every
head. Row by row the mask is two short vectors, so attention in blocks of rows makes each piece where it is used.
"""

import onnx_ir as ir

from asap_export.graph.cpu.functions import call
from asap_export.graph.cpu.layer import layer_of
from asap_export.graph.cpu.rows import take_over
from asap_export.graph.cpu.stages import Stages, is_soft, valid_of

__all__ = ["soft_mask_in_blocks"]


def soft_mask_in_blocks(model: ir.Model) -> None:
    """Replace AsapMask and the Attention under it by SoftMaskedAttention; one row of a score gets its own."""
    graph = model.graph
    stages = Stages(graph)
    for node in [node for node in graph if node.op_type == "AsapScore"]:
        bias = node.inputs[2]
        assert bias is not None
        if is_soft(bias):
            _score_in_blocks(graph, node, stages, bias)
        else:
            _score_by_the_last_row(graph, node)
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


def _source(mask: ir.Value) -> ir.Node:
    """The AsapMask behind a mask."""
    node = mask.producer()
    while node is not None and node.op_type == "Cast":
        node = node.inputs[0].producer()  # type: ignore[union-attr]
    assert node is not None
    return node


def _settings(mask: ir.Node) -> dict[str, float]:
    return {name: mask.attributes[name].as_float() for name in ("lambda_max", "scale")}


def _score_by_the_last_row(graph: ir.Graph, score: ir.Node) -> None:
    """Where one row decides (the score ``last``), its bias is made alone instead of taken out of the whole, and no
    loop over heads is needed to keep it small."""
    path = []
    value = score.inputs[2]
    for kind in ("Transpose", "GatherND"):
        node = value.producer() if value is not None else None
        if node is None or node.op_type != kind:
            return  # all rows: their bias is needed as it is
        path.append(node)
        value = node.inputs[0]
    whole = value.producer().inputs[0]  # type: ignore[union-attr]
    place = path[-1].inputs[1].producer().inputs[1]  # type: ignore[union-attr]
    last = place.producer().inputs[0]  # type: ignore[union-attr]
    valid = valid_of(whole)  # type: ignore[arg-type]
    visual = next(value for value in graph.inputs if value.name == "visual_mask")
    bias = call("LastRowBias", [valid, visual, last])
    query, key, _, row_weight = score.inputs
    scale = score.attributes["scale"].as_float()
    node = call("LastRowScore", [query, key, bias.outputs[0], row_weight], {"scale": scale})
    graph.insert_before(score, [bias, node])
    take_over(score.outputs[0], node.outputs[0])
