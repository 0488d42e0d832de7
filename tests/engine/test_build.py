"""Real builds, ahead of time, on a machine that needs no GPU. What the engines answer is not seen here."""

import errno
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from engine_specs import PINPOINTS
from onnx import numpy_helper

from asap_export.bundle import Bundle, Limits, Profile, ShapeRange
from asap_export.engine import (
    build_engines,
    check_limits,
    child,
    decoder_parts,
    graph_info,
    graph_profiles,
)
from asap_export.engine.build import build_engine
from asap_export.engine.compile import Job, builder_config, compile_engine
from asap_export.engine.flavor import load_tools
from asap_export.errors import UserError
from asap_export.pruning.config import Budget

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

AMPERE = ("8.6",)


@pytest.fixture
def small_graph() -> onnx.ModelProto:
    """x [rows, 8] and a length -> the first rows of x, doubled."""
    return onnx.parser.parse_model("""
        <ir_version: 11, opset_import: ["" : 23]>
        double (float[rows,8] x, int64 length) => (float[kept,8] y) {
          one = Constant <value = int64[1] {1}> ()
          zero = Constant <value = int64[1] {0}> ()
          end = Reshape (length, one)
          head = Slice (x, zero, end, zero)
          y = Add (head, head)
        }""")


ROWS = Profile(
    "request", {"x": ShapeRange((1, 8), (16, 8), (99, 8))}, {"length": ShapeRange((1,), (4,), (99,))}
)
ENGINE = "engines/embed_tokens.tensorrt_rtx.engine"


def build(folder: Path, graph: onnx.ModelProto, profile=ROWS, capabilities=AMPERE, **options):
    return build_engine(folder, "embed_tokens", graph, [profile], "tensorrt_rtx", capabilities, **options)


def test_a_graph_becomes_an_engine_and_says_so(small_graph, tmp_path, capfd):
    heard = []
    info = build(tmp_path, small_graph, capabilities=("8.6", "12.0"), progress=heard.append)
    assert (tmp_path / info.file).stat().st_size > 0
    assert info.file == ENGINE
    assert info.compute_capabilities == ("8.6", "12.0")
    assert info.profiles == (ROWS,)
    assert info.part is None
    assert info.tensorrt_version[0].isdigit()
    fractions = [report.fraction for report in heard]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 1)
    assert {report.stage for report in heard} == {"Build embed_tokens.tensorrt_rtx.engine"}
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["engines"]


def job_for(graph: onnx.ModelProto, folder: Path) -> Job:
    onnx.save(graph, folder / "graph.onnx")
    return Job(str(folder / "graph.onnx"), str(folder / "engine"), "tensorrt_rtx", AMPERE, (ROWS,))


def test_float32_is_float32_and_not_tf32(small_graph, tmp_path):
    tools, job = load_tools("tensorrt_rtx"), job_for(small_graph, tmp_path)
    builder, network, _parser = tools.loaders.network_from_onnx_path(job.graph)
    config = builder_config(tools, builder, network, job)
    assert not config.get_flag(tools.trt.BuilderFlag.TF32)


def test_a_tensorrt_that_cannot_stream_gives_its_engine_in_one_piece(tmp_path):
    builder = SimpleNamespace(build_serialized_network=lambda network, config: b"plan")
    loaders = SimpleNamespace(
        network_from_onnx_path=lambda path: (builder, "network", "parser"),
        set_decomposable_attentions=lambda loaded: loaded,
    )
    tools = load_tools("tensorrt_rtx")._replace(
        loaders=loaders,
        create_config=lambda *arguments, **options: SimpleNamespace(clear_flag=lambda flag: None),
    )
    job = Job("graph.onnx", str(tmp_path / "engine"), "tensorrt", ("current",), ())
    assert compile_engine(tools, job, lambda fraction, phase: None)
    assert (tmp_path / "engine").read_bytes() == b"plan"


def test_what_tensorrt_refuses_is_told_in_its_words(small_graph, tmp_path, capfd):
    small_graph.graph.node[-1].op_type = "StringConcat"
    with pytest.raises(UserError, match=r"expected TensorRT to build engines/embed.*StringConcat") as refused:
        build(tmp_path, small_graph)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_profiles_that_contradict_the_graph_are_refused(small_graph, tmp_path):
    wrong = Profile("request", {"x": ShapeRange((1, 9), (1, 9), (1, 9))}, ROWS.values)
    with pytest.raises(UserError, match="expected TensorRT to build"):
        build(tmp_path, small_graph, wrong)


def test_ctrl_c_leaves_nothing(small_graph, tmp_path):
    def interrupt(report):
        if report.fraction:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, small_graph, progress=interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (
            signal.SIGSEGV,
            r"build engines/embed_tokens\S+, found that it crashed \(SIGSEGV\); use quantize int4",
        ),
        (signal.SIGKILL, "the system killed it, most likely for want of memory; use quantize int4"),
    ],
)
def test_a_crash_is_one_line_and_leaves_nothing(small_graph, tmp_path, monkeypatch, number, said):
    """As if TensorRT had crashed over a half-written engine."""
    program = (
        "import json, os, pathlib, sys; "
        "pathlib.Path(json.load(sys.stdin)['engine']).write_text('half'); "
        f"os.kill(os.getpid(), {int(number)})"
    )
    monkeypatch.setattr(child, "_PROGRAM", (sys.executable, "-c", program))
    with pytest.raises(UserError, match=said):
        build(tmp_path, small_graph)
    assert not list(tmp_path.iterdir())


def test_a_fault_of_ours_in_the_child_shows_its_traceback(small_graph, tmp_path, monkeypatch):
    monkeypatch.setattr(child, "_PROGRAM", (sys.executable, "-c", "1 / 0"))
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        build(tmp_path, small_graph)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_fills_up_is_told_and_no_part_of_the_engine_stays(small_graph, tmp_path):
    """TensorRT itself takes no note of a writer that fails, and says that the engine is built."""
    (tmp_path / "engines").mkdir()
    (tmp_path / ENGINE).symlink_to("/dev/full")
    with pytest.raises(UserError, match="disk full") as refused:
        build(tmp_path, small_graph)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_cannot_be_written_is_told(small_graph, tmp_path):
    (tmp_path / "engines").mkdir()
    (tmp_path / ENGINE).symlink_to("/dev/full/engine")
    with pytest.raises(UserError, match=os.strerror(errno.ENOTDIR)):
        build(tmp_path, small_graph)


@pytest.fixture
def built(request, tmp_path):
    """A copy of the named bundle with its engines, as an export builds them."""
    folder = tmp_path / "bundle"
    shutil.copytree(request.getfixturevalue(request.param), folder)
    manifest = Bundle.open(folder).manifest
    cut = manifest.pruning.prune_after if manifest.pruning.prunes else None
    parts = decoder_parts(manifest.model.layers, cut)
    return folder, build_engines(folder, manifest, "tensorrt_rtx", AMPERE, parts)


@pytest.mark.parametrize(
    "built", ["pruned_bundle", "fp16_bundle", "dense_bundle", "untrimmed_bundle"], indirect=True
)
def test_every_bundle_builds_and_holds_its_weights_once(built):
    folder, (vision, embed, *parts) = built
    assert [engine.graph for engine in (vision, embed)] == ["vision_encoder", "embed_tokens"]
    prunes = Bundle.open(folder).manifest.pruning.prunes
    titles = ["decoder.early", "decoder.late"] if prunes else ["decoder"]
    assert [part.file for part in parts] == [f"engines/{title}.tensorrt_rtx.engine" for title in titles]
    for part in parts:
        assert part.graph == "decoder"
        names = ["context", "generation", *(["dense_context", "dense_generation"] if prunes else [])]
        assert [profile.name for profile in part.profiles] == names
    assert not list(folder.glob(".*"))
    engine = b"".join((folder / part.file).read_bytes() for part in parts)
    weights = [numpy_helper.to_array(each) for each in onnx.load(folder / "decoder.onnx").graph.initializer]
    matrices = [weight for weight in weights if weight.ndim == 2 and weight.nbytes > 4096]
    assert len(matrices) > 50
    for matrix in matrices:  # TensorRT may have transposed it
        forms = {np.ascontiguousarray(form).reshape(-1)[:64].tobytes() for form in (matrix, matrix.T)}
        assert sum(engine.count(form) for form in forms) == 1


@pytest.mark.parametrize(
    "bundle",
    [
        "fp16_bundle",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("pruned_bundle", "untrimmed_bundle")),
    ],
)
def test_four_large_images_build_whatever_is_kept_of_them(bundle, request, tmp_path):
    """TensorRT's TopK ends at 3,840 elements; of 4 x 2,928 visual tokens 6,000 are kept here."""
    folder = shutil.copytree(request.getfixturevalue(bundle), tmp_path / "bundle")
    manifest = Bundle.open(folder).manifest
    model = replace(
        manifest.model, tile_size=336, patch_size=14, grid_pinpoints=PINPOINTS, max_visual_tokens=2928,
        max_position_embeddings=32768,
    )  # fmt: skip
    graph = onnx.load(folder / "decoder.onnx", load_external_data=False)
    limits, budget = Limits(1, 4, 512, 512), Budget(keep=6000)
    check_limits(limits, model, manifest.pruning, budget, with_engines=True)
    profiles = graph_profiles(graph_info(graph, "decoder.onnx"), model, manifest.pruning, budget, limits)
    assert profiles[0].values["kept_length"].max == (6512,)
    info = build_engine(folder, "decoder", graph, profiles, "tensorrt_rtx", AMPERE)
    assert (folder / info.file).stat().st_size > 0


@pytest.mark.parametrize("built", ["fp16_bundle"], indirect=True)
def test_in_half_precision_no_attention_is_decomposed(built):
    assert [engine.decomposed_attention for engine in built[1]] == [()] * 4


def test_layers_behind_the_cut_of_a_single_engine_are_reported_as_decomposed(fp16_bundle, tmp_path):
    folder = shutil.copytree(fp16_bundle, tmp_path / "bundle")
    manifest = Bundle.open(folder).manifest
    whole = decoder_parts(manifest.model.layers, 2, single=True)
    vision, embed, decoder = build_engines(folder, manifest, "tensorrt_rtx", AMPERE, whole)
    attention = [
        node.name for node in onnx.load(folder / "decoder.onnx", load_external_data=False).graph.node
        if node.op_type == "Attention"
    ]  # fmt: skip
    assert decoder.decomposed_attention == tuple(attention[2:])
    assert vision.decomposed_attention == embed.decomposed_attention == ()


def test_the_decoder_in_parts_builds_and_names_what_crosses(fp16_bundle, tmp_path):
    folder = shutil.copytree(fp16_bundle, tmp_path / "bundle")
    manifest = Bundle.open(folder).manifest
    wanted = decoder_parts(manifest.model.layers, 2, layers_per_engine=3)
    _, _, *parts = build_engines(folder, manifest, "tensorrt_rtx", AMPERE, wanted)
    assert [part.file for part in parts] == [
        f"engines/decoder.{title}.tensorrt_rtx.engine" for title in ("early", "late.0", "late.1")
    ]
    assert [part.part.layers for part in parts] == [(0, 1), (2, 4), (5, 7)]
    assert all((folder / part.file).stat().st_size > 0 for part in parts)
    assert not list(folder.glob(".*"))
    behind = {tensor.name: tensor.dims for tensor in parts[1].part.inputs}
    assert behind["hidden_states.2"] == ("batch", "kept_sequence", manifest.model.hidden_size)
    assert behind["kept_index"] == ("batch", "kept_sequence")
    context, generation, *_ = parts[1].profiles
    assert context.shapes["kept_index"].max == (1, parts[0].profiles[0].values["kept_length"].max[0])
    assert generation.shapes["hidden_states.2"].min == (1, 1, manifest.model.hidden_size)
    assert not context.values  # kept_length is for the part that cuts
    assert [len(part.decomposed_attention) for part in parts] == [0, 0, 0]
