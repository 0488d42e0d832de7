"""Equal keys tie exactly: equal mass and equal scores, no salience where all are equal, the lowest kept.

Not so in onnx's own evaluator, whose products are numpy's (docs/method.md).
"""

from functools import cache

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from operator_models import run_operator

from asap_export.graph.cpu.functions import attach_cpu_functions, call
from asap_export.pruning import cut
from asap_export.pruning.config import PruningConfig
from asap_export.pruning.scores import last_valid_row, row_weight

# tokens, cached tokens, heads, key heads, head size, different visual keys
SHAPES = [
    (14, 0, 1, 1, 8, 1), (37, 0, 4, 2, 24, 1), (61, 5, 3, 1, 20, 1), (100, 0, 5, 5, 7, 1), (129, 0, 2, 1, 1, 1),
    (333, 31, 14, 2, 64, 1), (700, 0, 8, 8, 96, 1), (1021, 0, 4, 4, 128, 1), (75, 0, 7, 1, 33, 3),
    (258, 3, 8, 2, 80, 2), (515, 0, 6, 3, 50, 4),
]  # fmt: skip
SCALE, LAMBDA = 0.19, 0.5


def scene(tokens, past, heads, kv_heads, head_dim, kinds, dtype=torch.float32):
    """Text around visual tokens whose queries and keys are of a few kinds, in blocks.

    Returns query, key, visual mask, valid, and the kind of each visual token.
    """
    noise = torch.Generator().manual_seed(tokens + head_dim)
    query = torch.randn(1, heads, tokens, head_dim, generator=noise).to(dtype)
    key = torch.randn(1, kv_heads, past + tokens, head_dim, generator=noise).to(dtype)
    place = torch.arange(3, tokens - 5)
    kind = place * kinds // tokens
    for number in range(kinds):
        block = place[kind == number]
        query[:, :, block] = query[:, :, block[:1]]
        key[:, :, past + block] = key[:, :, past + block[:1]]
    visual = torch.zeros(1, tokens, dtype=torch.bool)
    visual[:, place] = True
    return query, key, visual, torch.ones(1, past + tokens, dtype=torch.bool), kind


def check(mass, salience, score, visual, kind):
    """mass, salience, score: [1, T], of new tokens; visual: [1, T]; kind: [N], of the visual ones."""
    for values in (mass, salience, score):
        of_visual = torch.as_tensor(values)[visual]
        assert {len(of_visual[kind == number].unique()) for number in kind.unique()} == {1}
    if len(kind.unique()) == 1:
        assert (torch.as_tensor(salience) == 0).all()


def lowest(visual, keep):
    """What is kept of visual tokens that are all alike, and all text."""
    place = torch.arange(visual.shape[1])
    return place[~visual[0] | (place < 3 + keep)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("score", ["last", "text", "salience"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_reference(shape, score, dtype):
    query, key, visual, valid, kind = scene(*shape, dtype=dtype)
    config = PruningConfig(score=score)
    seen = cut.observe_attention(config, query, key, visual, valid, SCALE)
    check(seen.mass, seen.salience, seen.score, visual, kind)
    if shape[-1] == 1:
        new_valid, keep = valid[:, shape[1] :], 4
        hidden = torch.randn(1, shape[0], 16)  # nothing to merge
        length = torch.tensor(int((~visual).sum()) + keep)
        found = cut.drop_tokens(config, seen, hidden, visual, new_valid, length)
        assert torch.equal(found.kept_index[0], lowest(visual, keep))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_portable_bodies(shape):
    query, key, visual, valid, kind = scene(*shape)
    inputs = {"query": query, "key": key, "visual_mask": visual, "attention_mask": valid}
    given = {name: value.numpy() for name, value in inputs.items()}
    seen = run_operator("onnxruntime", "AsapMask", given, lambda_max=LAMBDA, scale=SCALE)
    for score in ("last", "text"):
        weight = row_weight(score, visual, valid[:, shape[1] :]).numpy()
        rows = {"query": given["query"], "key": given["key"], "bias": seen["bias"], "row_weight": weight}
        if score == "last":  # as the decoder has it
            rows |= {name: rows[name][:, :, -1:] for name in ("query", "bias")}
            rows["row_weight"] = weight[:, -1:]
        received = run_operator("onnxruntime", "AsapScore", rows, scale=SCALE)["score"]
        check(seen["mass"], seen["salience"], received[:, shape[1] :], visual, kind)


@cache
def cpu_functions():
    """AttendInBlocks, and LastRowScore behind LastRowBias, in ONNX Runtime."""
    kinds = {"query": "FLOAT", "key": "FLOAT", "row": "FLOAT", "visual_mask": "BOOL", "valid": "BOOL"}
    kinds |= {"last": "INT64", "weight": "FLOAT", "plain": "BOOL"}
    dims = {"visual_mask": "bt", "valid": "bs", "last": "bo", "weight": "bo", "plain": ""}
    values = {
        name: ir.Value(
            name=name, type=ir.TensorType(ir.DataType[kind]), shape=ir.Shape(dims.get(name, f"b{name}td"))
        )
        for name, kind in kinds.items()
    }
    query, key, row, visual, valid, last, weight, plain = values.values()
    for value, heads in ((query, "h"), (row, "h"), (key, "g")):
        value.shape = ir.Shape(["b", heads, f"{value.name}_rows", "d"])
    settings = {"lambda_max": LAMBDA, "scale": SCALE}
    attend = call("AttendInBlocks", [query, key, key, visual, valid, plain], settings, 3)
    bias = call("LastRowBias", [valid, visual, last])
    score = call("LastRowScore", [row, key, bias.outputs[0], weight], {"scale": SCALE})
    outputs = [*attend.outputs[1:], *score.outputs]
    for name, output in zip(("mass", "salience", "score"), outputs, strict=True):
        output.name, output.type = name, ir.TensorType(ir.DataType.FLOAT)
    nodes = [attend, bias, score]
    graph = ir.Graph(list(values.values()), outputs, nodes=nodes, opset_imports={"": 23}, name="cpu")
    model = ir.Model(graph, ir_version=11)
    attach_cpu_functions(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("plain", [True, False])
def test_functions_for_the_cpu(shape, plain):
    query, key, visual, valid, kind = scene(*shape)
    last = last_valid_row(valid[:, shape[1] :])[:, None]
    inputs = {"query": query, "key": key, "row": query[:, :, -1:], "visual_mask": visual, "valid": valid}
    inputs |= {"last": last, "weight": torch.ones(1, 1), "plain": torch.tensor(plain)}
    feeds = {name: value.numpy() for name, value in inputs.items()}
    mass, salience, score = cpu_functions().run(["mass", "salience", "score"], feeds)
    check(mass, salience, score[:, shape[1] :], visual, kind)
    if shape[-1] == 1:
        candidates = {
            "value": score[:, shape[1] :],
            "candidate": feeds["visual_mask"],
            "count": np.array([[4]]),
        }
        chosen = run_operator("onnxruntime", "SelectLargest", candidates)["chosen"]
        assert chosen[0].nonzero()[0].tolist() == [3, 4, 5, 6]
