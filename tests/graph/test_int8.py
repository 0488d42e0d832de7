"""8-bit weights: the numbers, the products with rounded rows that CPUs compute, and what an export says."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from command import refused, run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import save_file

from asap_export.exporter import ExportRequest, export
from asap_export.graph.codes import CODES, FORM, SCALES, dequantized_weights, quantize_outputs
from asap_export.graph.cpu import lower_for_cpu
from asap_export.graph.cpu.activations import keep_activations, round_activations
from asap_export.graph.cpu.functions import complete
from asap_export.spec import QUANTIZATIONS

FLOATS = st.floats(-4, 4, width=32)
WEIGHTS = arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 40)), elements=FLOATS)


def dequantized(folder: Path, weight: np.ndarray) -> np.ndarray:
    codes, scales = quantize_outputs(weight)
    assert codes.dtype == np.int8 and codes.min() >= -127
    tensors = {"w" + CODES: np.ascontiguousarray(codes.T), "w" + SCALES: scales}
    save_file(tensors, folder / "w.safetensors", metadata={FORM: "DequantizeLinear"})
    ((_, found),) = dequantized_weights(folder / "w.safetensors")
    return found


@given(WEIGHTS)
@settings(max_examples=60)
def test_no_value_is_further_away_than_half_a_step(tmp_path_factory, weight):
    found = dequantized(tmp_path_factory.mktemp("w"), weight)
    step = np.abs(weight).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - weight) <= 0.5 * step * (1 + 1e-4) + 1e-30).all()


def test_the_extreme_of_an_output_is_exact_and_zeros_stay_zero(tmp_path):
    weight = np.zeros((3, 40), np.float32)
    weight[0, 3], weight[0, 4], weight[1, 39] = -0.75, 0.25, 127.0
    found = dequantized(tmp_path, weight)
    assert found[0, 3] == pytest.approx(-0.75, rel=1e-6) and found[1, 39] == 127
    np.testing.assert_array_equal(found[weight == 0], 0)


def product(lowered: bool = True, kind: ir.DataType = ir.DataType.FLOAT) -> onnx.ModelProto:
    """Rows times dequantized weights, as decoder.onnx has it, and what the pass makes of it."""
    shapes = {"rows": (None, None, 8), "codes": (8, 4), "scales": (4,)}
    kinds = {"rows": kind, "codes": ir.DataType.INT8, "scales": kind}
    inputs = [
        ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(kinds[name]))
        for name, shape in shapes.items()
    ]
    weight = ir.node("DequantizeLinear", inputs[1:], attributes={"axis": 1})
    result = ir.node("MatMul", [inputs[0], weight.outputs[0]])
    result.outputs[0].name, result.outputs[0].type = "product", ir.TensorType(kind)
    graph = ir.Graph(inputs, result.outputs, nodes=[weight, result], opset_imports={"": 23}, name="product")
    model = ir.Model(graph, ir_version=10)
    if lowered:
        round_activations(model)
        complete(model)
    return ir.to_proto(model)


def run_model(model: onnx.ModelProto, *options: tuple[str, str], **feeds: np.ndarray) -> np.ndarray:
    settings_ = onnxruntime.SessionOptions()
    for name, value in options:
        settings_.add_session_config_entry(name, value)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), settings_, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, feeds)
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@given(
    rows=arrays.arrays(np.float32, (2, 3, 8), elements=st.floats(-8, 8, width=32)),
    codes=arrays.arrays(np.int8, (8, 4), elements=st.integers(-127, 127)),
)
@settings(max_examples=40, deadline=None)
def test_rows_are_rounded_in_steps_of_their_own(dtype, rows, codes):
    """Against the definition, in float64. A value halfway between two steps may go either way."""
    model = product(kind=ir.DataType.FLOAT if dtype == np.float32 else ir.DataType.FLOAT16)
    rows, scales = rows.astype(dtype), np.array([0.5, 0.25, 1 / 128, 2], dtype)
    found = run_model(model, rows=rows, codes=codes, scales=scales)

    exact, weight = rows.astype(np.float64), codes * scales.astype(np.float64)
    step = np.maximum(np.abs(exact).max(axis=-1, keepdims=True), 1e-20) / 127
    expected = (np.rint(exact / step) * step) @ weight
    distance = np.abs(exact / step - np.floor(exact / step) - 0.5)
    either_way = np.where(distance < 1e-3, step, 0) @ np.abs(weight)
    rounding = (2.0**-10 if dtype == np.float16 else 1e-5) * (np.abs(exact) @ np.abs(weight)) + 1e-4
    assert found.dtype == dtype
    assert (np.abs(found - expected) <= either_way + rounding).all()


def test_kernels_for_processors_without_vnni_give_the_same():
    """Sessions ask for them where fast ones would overflow."""
    rows = np.ones((1, 3, 8), np.float32)
    feeds = {"rows": rows, "codes": np.full((8, 4), 127, np.int8), "scales": np.ones(4, np.float32)}
    found = run_model(product(), ("session.x64quantprecision", "1"), **feeds)
    np.testing.assert_allclose(found, np.full((1, 3, 4), 8 * 127), rtol=1e-6)


def test_a_row_of_zeros_stays_one():
    rows = np.zeros((1, 2, 8), np.float32)
    rows[0, 1] = 1e4  # what another row holds changes nothing
    found = run_model(product(), rows=rows, codes=np.full((8, 4), 3, np.int8), scales=np.ones(4, np.float32))
    np.testing.assert_allclose(found, [[[0] * 4, [2.4e5] * 4]], rtol=1e-6)


def test_taking_the_pass_back_gives_the_product_of_decoder_onnx():
    feeds = {
        "rows": np.random.default_rng(3).normal(size=(1, 5, 8)).astype(np.float32),
        "codes": np.arange(-16, 16, dtype=np.int8).reshape(8, 4),
        "scales": np.array([0.5, 0.25, 0.125, 2], np.float32),
    }
    expected, model = run_model(product(lowered=False), **feeds), product()
    assert np.abs(run_model(model, **feeds) - expected).max() > 1e-3
    keep_activations(model)
    np.testing.assert_allclose(run_model(model, **feeds), expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def int8_bundle(short_checkpoint, tmp_path_factory) -> Path:
    """Three layers, fp32, int8."""
    folder = tmp_path_factory.mktemp("int8") / "bundle"
    request = ExportRequest(
        str(short_checkpoint), output=folder, dtype="fp32", quantization=QUANTIZATIONS["int8"]
    )
    return export(request).bundle.path


def operators(folder: Path, name: str) -> list[str]:
    return [node.op_type for node in onnx.load(folder / name, load_external_data=False).graph.node]


def test_the_decoder_for_cpus_multiplies_integers_and_every_other_form_dequantizes(int8_bundle):
    products = 3 * 7 + 1
    for name in ("decoder.onnx", "decoder.cuda.onnx"):
        assert operators(int8_bundle, name).count("DequantizeLinear") == products
    on_cpu = operators(int8_bundle, "decoder.cpu.onnx")
    assert on_cpu.count("RoundedRows") == 3 * 4 + 1  # projections of one layer share rows
    assert on_cpu.count("RoundedMatMul") == products and "DequantizeLinear" not in on_cpu
    onnx.checker.check_model(int8_bundle / "decoder.cpu.onnx", full_check=True)


def test_onnx_itself_dequantizes_the_same_weights(int8_bundle):
    model = onnx.load(int8_bundle / "decoder.onnx")
    weights = dict(dequantized_weights(int8_bundle / "weights/decoder.int8.safetensors"))
    name = "model.language_model.layers.1.mlp.down_proj.weight"
    node = next(node for node in model.graph.node if name + CODES in node.input)
    held = [tensor for tensor in model.graph.initializer if tensor.name in node.input]
    node.output[0] = "w"
    output = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([node], "one", [], [output], held)
    one = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)])
    np.testing.assert_array_equal(ReferenceEvaluator(one).run(None, {})[0], weights[name].T)


def test_without_the_pass_activations_stay(int8_bundle):
    model = ir.load(int8_bundle / "decoder.onnx")
    lower_for_cpu(model)
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("DequantizeLinear") == 3 * 7 + 1 and "RoundedMatMul" not in kinds


@pytest.mark.long
def test_an_export_says_what_is_quantized(short_checkpoint, tmp_path):
    bundle = tmp_path / "bundle"
    said = run("--model", short_checkpoint, "--quantize", "int8", "--output", bundle).stdout
    said = " ".join(said.split())
    assert "3 down_proj, lm_head: one scale for each output, symmetric" in said
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["quantization"] == {"bits": 8, "block_size": None}
    assert "int8-activations" in manifest["cpu_decoder"]["passes"]
    assert "int8, one scale for each output" in run("inspect", bundle).stdout
    answer = run("run", bundle, "--prompt", "Hello", "--max-new-tokens", "3", "--json").stdout
    assert len(json.loads(answer)["token_ids"]) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--block-size", "32"], "expected --block-size with --quantize int4, found int8"),
        (["--weights", "link"], "expected no --weights link with --quantize"),
        (["--engine", "trt"], "expected --quantize int4 with --engine trt"),
    ],
)
def test_options_that_do_not_go_with_it_are_refused(options, said, tmp_path):
    assert said in refused("--quantize", "int8", *options, "--output", tmp_path / "b", folder=tmp_path)
