"""The decoder for ONNX Runtime's CPU provider: it computes what decoder.onnx computes, with less."""

import json
import os

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_checkpoints import LANGUAGE_MODELS, SmallModel, write_checkpoint
from transformers import MistralConfig

from asap_export.exporter import ExportRequest, export
from asap_export.graph.cpu import lower_for_cpu, passes_for
from asap_export.graph.cpu.functions import attach_cpu_functions, call
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession

PASSES = ("fused-attention", "blockwise-soft-mask", "skipped-cut")
CASES = {
    "a prompt": {"new": 24, "visual": range(5, 15), "kept": 20},
    "a later turn with an image": {"new": 24, "past": 7, "visual": range(5, 15), "kept": 20},
    "a prompt of more than 768 tokens": {"new": 800, "visual": range(5, 600), "kept": 790},
    "a later turn of text": {"new": 9, "past": 7},
    "a decode step": {"new": 1, "past": 30},
    "every visual token kept": {"new": 24, "visual": range(5, 15), "kept": 24},
    "every visual token kept in a later turn": {"new": 24, "past": 7, "visual": range(5, 15), "kept": 24},
    "two rows": {"new": 24, "visual": range(5, 15), "kept": 20, "rows": 2},
    "two padded rows": {"new": 24, "visual": range(9, 15), "kept": 20, "rows": 2, "padding": (0, 6)},
    "two rows in a later turn": {"new": 5, "past": 7, "rows": 2},
    "a step of two padded rows": {"new": 1, "past": 9, "rows": 2, "padding": (0, 3)},
}


def lowered(folder, passes=PASSES):
    model = ir.load(folder / "decoder.onnx")
    lower_for_cpu(model, passes)
    return ir.to_proto(model)


def feeds_of(model, new, past=0, visual=(), kept=None, rows=1, padding=None):
    """Inputs of a run, as far as the graph has them; ``padding``: invalid columns on the left of each row."""
    random = np.random.default_rng(new + past)
    given = {value.name for value in model.graph.initializer}  # filled_places may be left out
    names = {value.name: value for value in model.graph.input if value.name not in given}
    width = names["inputs_embeds"].type.tensor_type.shape.dim[2].dim_value
    early = 2 if "early_attention_mask" in names else 0
    valid = np.ones((rows, past + new), np.int64)
    for row, columns in enumerate(padding or (0,) * rows):
        valid[row, :columns] = 0
    positions = np.maximum(valid.cumsum(axis=1) - 1, 0)[:, past:]
    is_visual = np.isin(np.arange(new), list(visual))[None] & (valid[:, past:] == 1)
    feeds = {
        "inputs_embeds": random.normal(size=(rows, new, width)).astype(np.float32),
        "attention_mask": valid,
        "early_attention_mask": np.concatenate([valid[:, :1].repeat(early, 1), valid], axis=1),
        "position_ids": positions,
        "visual_mask": is_visual,
        "kept_length": np.array(kept or new),
    }
    feeds = {name: value for name, value in feeds.items() if name in names}
    for name, value in names.items():
        if name not in feeds:
            heads, head_dim = (value.type.tensor_type.shape.dim[axis].dim_value for axis in (1, 3))
            length = past + (early if int(name.split(".")[1]) < 2 else 0)
            feeds[name] = random.normal(size=(rows, heads, length, head_dim)).astype(np.float32)
    return feeds


def opened(model, folder):
    """A function that runs the model."""
    session = OnnxRuntimeSession(model.SerializeToString(), weights=folder, threads=1, fold_constants=False)
    return lambda feeds: session.run(feeds, on_host=[value.name for value in model.graph.output])


def named_dimension(values, name):
    """Which of a graph's inputs or outputs have a third dimension of this name."""
    dims = {value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in values}
    return [value for value, named in dims.items() if named[2:3] == [name]]


def trimmed(model, outputs, past):
    """What a caller makes of the outputs: caches that still hold what was cut lose it."""
    kept = dict(outputs)
    for name in named_dimension(model.graph.output, "untrimmed"):
        stayed = past + outputs["kept_index"][:, None, :, None]
        tokens = np.take_along_axis(outputs[name], stayed, axis=2)
        kept[name] = np.concatenate([outputs[name][:, :, :past], tokens], axis=2)
    return kept


@pytest.mark.parametrize("bundle_name", ["pruned_bundle", "dense_bundle", "untrimmed_bundle"])
@pytest.mark.parametrize("passes", [PASSES, *((name,) for name in PASSES)], ids=",".join)
def test_it_computes_what_decoder_onnx_computes(bundle_name, passes, request):
    folder = request.getfixturevalue(bundle_name)
    whole, for_cpu = onnx.load(folder / "decoder.onnx", load_external_data=False), lowered(folder, passes)
    canonical, other = opened(whole, folder), opened(for_cpu, folder)
    for case, settings_ in CASES.items():
        feeds = feeds_of(whole, **settings_)
        expected, found = canonical(feeds), trimmed(for_cpu, other(feeds), settings_.get("past", 0))
        assert expected.keys() == found.keys()
        for name in expected:
            scale = np.abs(expected[name]).max(initial=0.0) or 1.0
            assert expected[name].shape == found[name].shape, (case, name)
            np.testing.assert_allclose(
                found[name], expected[name], atol=2e-5 * scale, err_msg=f"{case}: {name}"
            )


@pytest.mark.parametrize("graph", ["decoder.onnx", "decoder.cpu.onnx"])
def test_a_row_that_loses_no_visual_token_is_the_dense_model_s(graph, pruned_bundle, dense_bundle):
    """Of the two padded rows the second has no more valid tokens than there are places."""
    model = onnx.load(pruned_bundle / graph, load_external_data=False)
    dense = onnx.load(dense_bundle / "decoder.onnx", load_external_data=False)
    pruned, whole = opened(model, pruned_bundle), opened(dense, dense_bundle)
    for case in ("every visual token kept", "every visual token kept in a later turn"):
        found = trimmed(model, pruned(feeds_of(model, **CASES[case])), CASES[case].get("past", 0))
        for name, expected in whole(feeds_of(dense, **CASES[case])).items():
            np.testing.assert_allclose(found[name], expected, atol=1e-4, err_msg=f"{case}: {name}")
    case = CASES["two padded rows"]
    found, expected = pruned(feeds_of(model, **case))["logits"], whole(feeds_of(dense, **case))["logits"]
    np.testing.assert_allclose(found[1], expected[1], atol=1e-4)
    assert np.abs(found[0] - expected[0]).max() > 1e-3


@pytest.mark.long
@pytest.mark.parametrize("score", ["received", "salience"])
def test_every_score_is_what_it_was(exported, short_checkpoint, score):
    folder = exported(f"score-{score}", "fp32", short_checkpoint, score=score)
    whole = onnx.load(folder / "decoder.onnx", load_external_data=False)
    canonical, other = opened(whole, folder), opened(lowered(folder), folder)
    for case in ("a prompt", "a later turn with an image", "two padded rows", "a decode step"):
        feeds = feeds_of(whole, **CASES[case])
        expected, found = canonical(feeds), other(feeds)
        np.testing.assert_array_equal(found["kept_index"], expected["kept_index"])
        np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-4)


def test_a_pass_that_is_left_out_leaves_its_nodes(pruned_bundle):
    kinds = {name: {node.op_type for node in lowered(pruned_bundle, (name,)).graph.node} for name in PASSES}
    assert "CausalAttention" in kinds["fused-attention"] and "AsapMask" in kinds["fused-attention"]
    assert (
        "SoftMaskedAttention" in kinds["blockwise-soft-mask"] and "Attention" in kinds["blockwise-soft-mask"]
    )
    assert "If" in kinds["skipped-cut"] and "AsapTopK" not in kinds["skipped-cut"]
    stored = onnx.load(pruned_bundle / "decoder.cpu.onnx", load_external_data=False)
    assert not {"Attention", "AsapMask", "AsapTopK"} & {node.op_type for node in stored.graph.node}


@pytest.mark.long
def test_heads_that_group_query_attention_refuses_go_without_it(tmp_path, monkeypatch):
    monkeypatch.setitem(
        LANGUAGE_MODELS, "heads of 20", (MistralConfig, {"head_dim": 20, "sliding_window": None})
    )
    checkpoint = write_checkpoint(tmp_path / "checkpoint", SmallModel(language="heads of 20"))
    folder = tmp_path / "out.bundle"
    done = export(ExportRequest(str(checkpoint), output=folder, dtype="fp32"))
    assert done.bundle.manifest.cpu_decoder.passes == ("skipped-cut",)
    assert done.plan.missing["CPU"].startswith(
        "the decoder goes without fused-attention and blockwise-soft-mask: ONNX Runtime's"
    )
    whole, for_cpu = (
        onnx.load(folder / name, load_external_data=False) for name in ("decoder.onnx", "decoder.cpu.onnx")
    )
    canonical, other = opened(whole, folder), opened(for_cpu, folder)
    for case, settings_ in CASES.items():
        feeds = feeds_of(whole, **settings_)
        expected, found = canonical(feeds), trimmed(for_cpu, other(feeds), settings_.get("past", 0))
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=f"{case}: {name}")


def test_only_passes_that_a_head_size_needs_are_left_out():
    assert passes_for(64, PASSES) == (PASSES, None)
    assert passes_for(20, ("skipped-cut", "int8-activations")) == (("skipped-cut", "int8-activations"), None)
    assert passes_for(20, ("fused-attention",))[0] == ()


VARIANTS = {
    "pruned": {},
    "score-received": {"score": "received"},
    "score-salience": {"score": "salience"},
    "no-bimask": {"bidirectional": False},
    "salience-alone": {"bidirectional": False, "score": "salience", "merge": False},
    "fastv": {"method": "fastv"},
}


@pytest.mark.parametrize(
    "variant", [v if v == "pruned" else pytest.param(v, marks=pytest.mark.long) for v in VARIANTS]
)
@pytest.mark.parametrize("case", ["a decode step", "a later turn of text"])
def test_new_tokens_are_written_into_buffers_that_are_past_and_present_at_once(
    exported, short_checkpoint, variant, case
):
    folder = exported(f"short-{variant}", "fp32", short_checkpoint, **VARIANTS[variant])
    decoder = onnx.load(folder / "decoder.cpu.onnx", load_external_data=False)
    session = OnnxRuntimeSession(folder / "decoder.cpu.onnx", threads=1)
    feeds = feeds_of(decoder, **CASES[case])
    outputs = [value.name for value in decoder.graph.output]
    expected = session.run(feeds, on_host=outputs)
    growing = named_dimension(decoder.graph.input, "capacity")
    assert len(growing) == 2 * 3
    assert (
        len(named_dimension(decoder.graph.output, "untrimmed")) == 2 * 2
    )  # of the two layers before the cut

    past, length = CASES[case]["past"], feeds["attention_mask"].shape[1]
    buffers = {name: np.full((1, 2, 50, 64), 7.0, np.float32) for name in growing}
    for name, buffer in buffers.items():
        buffer[:, :, :past] = feeds[name]
    into = {name.replace("past_key_values", "present"): buffer for name, buffer in buffers.items()}
    found = session.run({**feeds, **buffers}, on_host=outputs, into=into)
    np.testing.assert_array_equal(found["logits"], expected["logits"])
    for name, buffer in into.items():
        np.testing.assert_array_equal(buffer[:, :, :length], expected[name])
        assert (buffer[:, :, length:] == 7.0).all()


def test_a_step_runs_no_selection(pruned_bundle, tmp_path):
    """ONNX Runtime's profile names the nodes that ran: sorting is done for a prompt, and for no step."""
    decoder = onnx.load(pruned_bundle / "decoder.cpu.onnx", load_external_data=False)
    ran = {}
    for case in ("a prompt", "a decode step"):
        session = OnnxRuntimeSession(
            pruned_bundle / "decoder.cpu.onnx", threads=1, profile=tmp_path / case.replace(" ", "-")
        )
        session.run(feeds_of(decoder, **CASES[case]))
        events = json.loads(session.end_profiling().read_text())
        ran[case] = {event["args"]["op_name"] for event in events if "op_name" in event.get("args", {})}
    assert "TopK" in ran["a prompt"]
    assert "TopK" not in ran["a decode step"]


def attention_model():
    """AttendInBlocks and ScoreInBlocks, beside the whole mask."""
    names = {
        "query": ir.DataType.FLOAT, "key": ir.DataType.FLOAT, "value": ir.DataType.FLOAT,
        "visual_mask": ir.DataType.BOOL, "valid": ir.DataType.BOOL, "row_weight": ir.DataType.FLOAT,
        "plain": ir.DataType.BOOL,
    }  # fmt: skip
    shapes = {
        "query": [1, 4, "new", 16],
        "key": [1, 2, "total", 16],
        "value": [1, 2, "total", 16],
        "plain": [],
    }
    shapes |= {"visual_mask": [1, "new"], "valid": [1, "total"], "row_weight": [1, "new"]}
    values = {
        name: ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shapes[name]))
        for name, kind in names.items()
    }
    query, key, value, visual, valid, weight, plain = values.values()
    attributes = {"lambda_max": 0.5, "scale": 0.25}
    attend = call("AttendInBlocks", [query, key, value, visual, valid, plain], attributes, 3)
    score = call("ScoreInBlocks", [query, key, visual, valid, weight, plain], attributes)
    outputs = [*attend.outputs, *score.outputs]
    for name, output in zip(("output", "mass", "salience", "score"), outputs, strict=True):
        output.name, output.type = name, ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        list(values.values()), outputs, nodes=[attend, score], opset_imports={"": 23}, name="one"
    )
    model = ir.Model(graph, ir_version=11)
    attach_cpu_functions(model)
    return ir.to_proto(model).SerializeToString()


@pytest.fixture(scope="module")
def in_blocks():
    return OnnxRuntimeSession(attention_model(), threads=os.cpu_count())


@settings(max_examples=12, deadline=None)
@given(
    new=st.sampled_from([1, 2, 511, 512, 513, 700, 1024, 1025]),
    past=st.sampled_from([0, 1, 300]),
    part=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_blocks_are_the_whole_mask(in_blocks, new, past, part, seed):
    random = np.random.default_rng(seed)
    visual = random.random((1, new)) < part
    feeds = {
        "query": random.normal(size=(1, 4, new, 16)).astype(np.float32),
        "key": random.normal(size=(1, 2, past + new, 16)).astype(np.float32),
        "value": random.normal(size=(1, 2, past + new, 16)).astype(np.float32),
        "visual_mask": visual,
        "valid": np.ones((1, past + new), bool),
        "row_weight": (visual / max(1, visual.sum())).astype(np.float32),
    }
    names = ("output", "mass", "salience", "score")
    blocks, whole = (
        in_blocks.run({**feeds, "plain": np.array(plain)}, on_host=names) for plain in (True, False)
    )
    for name in names:
        np.testing.assert_allclose(blocks[name], whole[name], atol=2e-6, err_msg=name)
