"""Real builds, ahead of time, on a machine that needs no GPU. What the engines answer is not seen here."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from asap_export.bundle import Bundle, GraphInfo, Profile, ShapeRange, TensorInfo
from asap_export.engine import build_engines
from asap_export.engine.build import build_engine
from asap_export.engine.flavor import load_tools
from asap_export.errors import UserError

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

AMPERE = ("8.6",)


@pytest.fixture
def small_graph(tmp_path) -> Path:
    """x [rows, 8] and a length -> the first rows of x, doubled."""
    model = onnx.parser.parse_model("""
        <ir_version: 11, opset_import: ["" : 23]>
        double (float[rows,8] x, int64 length) => (float[kept,8] y) {
          one = Constant <value = int64[1] {1}> ()
          zero = Constant <value = int64[1] {0}> ()
          end = Reshape (length, one)
          head = Slice (x, zero, end, zero)
          y = Add (head, head)
        }""")
    onnx.save(model, tmp_path / "embed_tokens.onnx")
    return tmp_path


SMALL = GraphInfo(
    "embed_tokens.onnx", (TensorInfo("x", "fp32", ("rows", 8)), TensorInfo("length", "int64", ())), ()
)
ROWS = Profile(
    "request", {"x": ShapeRange((1, 8), (16, 8), (99, 8))}, {"length": ShapeRange((1,), (4,), (99,))}
)


def test_a_graph_becomes_an_engine_and_says_so(small_graph, capfd):
    heard = []
    info = build_engine(
        small_graph, "embed_tokens", SMALL, [ROWS], "tensorrt_rtx", ("8.6", "12.0"), heard.append
    )
    assert (small_graph / info.file).stat().st_size > 0
    assert info.file == "engines/embed_tokens.tensorrt_rtx.engine"
    assert info.compute_capabilities == ("8.6", "12.0")
    assert info.profiles == (ROWS,)
    assert info.tensorrt_version[0].isdigit()
    fractions = [report.fraction for report in heard]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 1)
    assert {report.stage for report in heard} == {"Build embed_tokens.tensorrt_rtx.engine"}
    assert capfd.readouterr() == ("", "")


def test_float32_is_float32_and_not_tf32(small_graph, monkeypatch):
    loaders, trt = load_tools("tensorrt_rtx").loaders, load_tools("tensorrt_rtx").trt
    build, seen = loaders.engine_bytes_from_network, []

    def watched(network, config):
        def noted(builder, network):
            created = config(builder, network)
            seen.append(created.get_flag(trt.BuilderFlag.TF32))
            return created

        return build(network, noted)

    monkeypatch.setattr(loaders, "engine_bytes_from_network", watched)
    build_engine(small_graph, "embed_tokens", SMALL, [ROWS], "tensorrt_rtx", AMPERE)
    assert seen == [False]


def test_what_tensorrt_refuses_is_told_in_its_words(small_graph, capfd):
    model = onnx.load(small_graph / SMALL.file)
    model.graph.node[-1].op_type = "StringConcat"
    onnx.save(model, small_graph / SMALL.file)
    with pytest.raises(
        UserError, match=r"expected TensorRT to build engines/embed_tokens.*StringConcat"
    ) as refused:
        build_engine(small_graph, "embed_tokens", SMALL, [ROWS], "tensorrt_rtx", AMPERE)
    assert "\n" not in str(refused.value)
    assert not (small_graph / "engines").exists()
    assert capfd.readouterr() == ("", "")


def test_profiles_that_contradict_the_graph_are_refused(small_graph):
    wrong = replace(ROWS, shapes={"x": ShapeRange((1, 9), (1, 9), (1, 9))})
    with pytest.raises(UserError, match="expected TensorRT to build"):
        build_engine(small_graph, "embed_tokens", SMALL, [wrong], "tensorrt_rtx", AMPERE)


def test_ctrl_c_leaves_nothing(small_graph):
    def interrupt(report):
        if report.fraction:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build_engine(small_graph, "embed_tokens", SMALL, [ROWS], "tensorrt_rtx", AMPERE, interrupt)
    assert [path.name for path in small_graph.iterdir()] == [SMALL.file]


@pytest.fixture
def built(request, tmp_path):
    """A copy of the named bundle with its engines."""
    folder = tmp_path / "bundle"
    shutil.copytree(request.getfixturevalue(request.param), folder)
    manifest = Bundle.open(folder).manifest
    return folder, build_engines(folder, manifest, "tensorrt_rtx", AMPERE)


@pytest.mark.parametrize(
    "built", ["demo_bundle", "fp16_bundle", "dense_bundle", "untrimmed_bundle"], indirect=True
)
def test_every_bundle_builds_and_holds_its_weights_once(built):
    folder, engines = built
    assert [engine.graph for engine in engines] == ["vision_encoder", "embed_tokens", "decoder"]
    assert [profile.name for profile in engines[-1].profiles] == ["context", "generation"]
    assert not list(folder.glob(".*"))
    engine = (folder / engines[-1].file).read_bytes()
    weights = [numpy_helper.to_array(each) for each in onnx.load(folder / "decoder.onnx").graph.initializer]
    matrices = [weight for weight in weights if weight.ndim == 2 and weight.nbytes > 4096]
    assert len(matrices) > 50
    for matrix in matrices:  # TensorRT may have transposed it
        forms = {np.ascontiguousarray(form).reshape(-1)[:64].tobytes() for form in (matrix, matrix.T)}
        assert sum(engine.count(form) for form in forms) == 1


@pytest.mark.parametrize("built", ["fp16_bundle"], indirect=True)
def test_layers_behind_the_cut_are_reported_as_decomposed(built):
    folder, (vision, embed, decoder) = built
    attention = [
        node.name for node in onnx.load(folder / "decoder.onnx", load_external_data=False).graph.node
        if node.op_type == "Attention"
    ]  # fmt: skip
    assert decoder.decomposed_attention == tuple(attention[2:])
    assert vision.decomposed_attention == embed.decomposed_attention == ()
