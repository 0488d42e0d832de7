"""ONNX Runtime's profile, summarised: of made-up events, and of a small bundle's own."""

import onnx
import pytest

from asap_export.bench.profile import mean_summary, name_nodes, summaries
from asap_export.bench.profiled import ProfiledRunner
from asap_export.bench.records import Workload
from asap_export.bench.workload import drawn_images
from asap_export.bundle import Bundle
from asap_export.model.anyres import TileGeometry


def run(ts: int, dur: int) -> dict:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur, "args": {}}


def node(name: str, operator: str, ts: int, dur: int) -> dict:
    arguments = {"op_name": operator}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "tid": 1, "args": arguments}


def test_nodes_in_loops_count_once_and_belong_to_asap_where_anything_around_them_does():
    loop = "_inlfunc_AsapScore_AsapScore/Loop_20"
    (found,) = summaries(
        [
            run(0, 1000),
            node("node_linear", "MatMul", 0, 500),
            node("sdpa", "Attention", 500, 200),
            node("norm", "RMSNormalization", 700, 100),
            node("Softmax_6", "Softmax", 810, 20),  # in the loop, which ends last
            node("MatMul_7", "MatMul", 830, 30),
            node(loop, "Loop", 800, 100),
            node("_inlfunc_SelectLargest_Asap.SelectLargest/TopK_5", "TopK", 900, 50),
        ]
    )
    assert found["seconds"] == 0.001
    assert found["shares"] == pytest.approx(
        {"asap": 0.15, "attention": 0.2, "matrix products": 0.5, "rest": 0.15}
    )
    assert found["asap"] == pytest.approx({"AsapScore": 100e-6, "SelectLargest": 50e-6})
    assert found["operators"] == pytest.approx(
        {"MatMul": 500e-6, "Attention": 200e-6, "RMSNormalization": 100e-6}
    )


def test_a_branch_that_is_none_of_asap_s_counts_what_it_does_itself():
    (found,) = summaries([run(0, 100), node("If_1", "If", 0, 80), node("AsapMask/Where_2", "Where", 10, 60)])
    assert found["shares"]["asap"] == pytest.approx(0.6)
    assert found["operators"] == pytest.approx({"If": 20e-6})


def test_runs_are_apart_and_their_mean_is_theirs():
    runs = summaries([run(0, 100), node("a", "MatMul", 0, 50), run(200, 300), node("a", "MatMul", 210, 30)])
    assert [one["shares"]["matrix products"] for one in runs] == pytest.approx([0.5, 0.1])
    mean = mean_summary(runs)
    assert mean["seconds"] == pytest.approx(200e-6)
    assert mean["shares"]["matrix products"] == pytest.approx(0.3)


def test_nodes_of_a_dense_layer_are_none_of_asap_s_wherever_they_stand():
    branch = "_inlfunc_SoftMaskedAttention_Asap.SoftMaskedAttention/If_1"
    heads = "_inlfunc_Heads_Dense.Heads/Transpose_7"
    (found,) = summaries([run(0, 100), node(branch, "If", 0, 80), node(heads, "Transpose", 10, 30)])
    assert found["asap"] == pytest.approx({"SoftMaskedAttention": 50e-6})
    assert found["operators"] == pytest.approx({"Transpose": 30e-6})


def test_every_node_of_a_function_is_named_as_asap_s_or_as_a_dense_layer_s(pruned_bundle):
    for file in ("decoder.onnx", "decoder.cpu.onnx"):
        model = onnx.load(pruned_bundle / file, load_external_data=False)
        before = [node.name for node in model.graph.node]
        name_nodes(model)
        assert [node.name for node in model.graph.node] == before
        dense = {"Plain", "CausalMask", "CausalAttention", "Heads", "Rows", "Appended"}
        named = {function.name: [node.name for node in function.node] for function in model.functions}
        for function, names in named.items():
            assert all(name.startswith("Dense" if function in dense else "Asap") for name in names)
        names = [name for of in named.values() for name in of]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("fixture", "of_a_cut"),
    [
        ("pruned_bundle", {"Salience", "BlockBias", "LastRowScore", "AsapTopK", "AsapMerge"}),
        ("dense_bundle", set()),
    ],
)
def test_the_profile_of_a_small_bundle(request, tmp_path, fixture, of_a_cut):
    path = request.getfixturevalue(fixture)
    geometry = TileGeometry.of(Bundle.open(path).manifest.model)
    images = tuple(map(str, drawn_images(tmp_path, 100, 1, geometry)))
    workload = Workload(images, "What is it?", visual_tokens=100, text_tokens=8, keep=20)
    found = ProfiledRunner(path, 1, tmp_path).profile(workload, 2)
    assert of_a_cut <= set(found["prefill"]["asap"])
    assert not {"LastRowScore", "AsapTopK", "AsapMerge"} & set(found["decode"]["asap"])
    assert of_a_cut or not found["prefill"]["asap"]
    for summary in (found["prefill"], found["decode"]):
        assert sum(summary["shares"].values()) == pytest.approx(1)
        assert all(-1e-9 <= share <= 1 for share in summary["shares"].values())
        assert summary["operators"]["MatMul"] > 0
    assert not list(tmp_path.glob("profile-*"))
