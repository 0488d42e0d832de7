"""4-bit weights: the numbers, the two forms in which graphs hold them, and what an export says about them."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from command import refused, run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx.reference import ReferenceEvaluator
from safetensors import safe_open
from safetensors.numpy import save_file
from short_checkpoint import write_short_checkpoint

from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.graph.codes import CODES, FORM, SCALES, dequantized_weights, quantize_blocks, transposed
from asap_export.graph.write import QuantizeAs, write_graphs
from asap_export.pruning.config import PruningConfig
from asap_export.spec import Quantization

BLOCK = 32
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WEIGHTS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 4).map(lambda n: 2 * n), st.integers(1, 3).map(lambda n: BLOCK * n)),
    elements=st.floats(-4, 4, width=32),
)


def dequantized(folder: Path, codes: np.ndarray, scales: np.ndarray, form: str) -> np.ndarray:
    save_file({"w" + CODES: codes, "w" + SCALES: scales}, folder / "w.safetensors", metadata={FORM: form})
    ((name, weight),) = dequantized_weights(folder / "w.safetensors")
    assert name == "w" and weight.dtype == np.float32
    return weight


@given(WEIGHTS)
@settings(max_examples=60)
def test_no_value_is_further_away_than_half_a_step(tmp_path_factory, weight):
    codes, scales = quantize_blocks(weight, BLOCK)
    found = dequantized(tmp_path_factory.mktemp("w"), codes, scales, "MatMulNBits")

    blocks = weight.reshape(len(weight), -1, BLOCK)
    error = np.abs(found.reshape(blocks.shape) - blocks)
    # A block's extreme is -8 steps and the range ends at 7: what lies beyond is cut off, by a step at most.
    beyond = np.abs(blocks) > 7 * np.abs(scales)[:, :, None]
    step = np.abs(scales)[:, :, None]
    assert (error <= np.where(beyond, 1.0, 0.5) * step * (1 + 1e-5) + 1e-30).all()


@given(WEIGHTS)
@settings(max_examples=60)
def test_both_forms_hold_the_same_weights(tmp_path_factory, weight):
    folder = tmp_path_factory.mktemp("w")
    codes, scales = quantize_blocks(weight, BLOCK)
    by_rows = dequantized(folder, codes, scales, "MatMulNBits")
    by_columns = dequantized(folder, transposed(codes), np.ascontiguousarray(scales.T), "DequantizeLinear")
    np.testing.assert_array_equal(by_rows, by_columns)


def test_the_extreme_of_a_block_is_exact_and_zeros_stay_zero(tmp_path):
    weight = np.zeros((2, 2 * BLOCK), np.float32)
    weight[0, 3], weight[0, 4], weight[1, 40] = -0.75, 0.25, 1.5
    codes, scales = quantize_blocks(weight, BLOCK)
    found = dequantized(tmp_path, codes, scales, "MatMulNBits")
    assert found[0, 3] == -0.75 and found[1, 40] == 1.5
    np.testing.assert_array_equal(found[weight == 0], 0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_short_checkpoint(tmp_path_factory.mktemp("short") / "checkpoint")


@pytest.fixture(scope="module")
def bundles(checkpoint, tmp_path_factory):
    """The folders of the same quantized graphs in either form, fp32."""
    folders = {}
    for form in ("MatMulNBits", "DequantizeLinear"):
        folders[form] = tmp_path_factory.mktemp(form)
        written = write_graphs(
            open_checkpoint(checkpoint),
            PruningConfig(),
            "fp32",
            folders[form],
            shutil.copyfile,
            quantize_as=QuantizeAs(Quantization(block_size=BLOCK), form),
        )
        assert len(written.quantized) == 3 * len(LINEAR) + 1 and not written.unquantized
    return folders


def feeds() -> dict[str, np.ndarray]:
    noise = np.random.default_rng(5)
    visual = np.zeros((1, 30), bool)
    visual[0, 4:24] = True
    empty = {f"past_key_values.{layer}.{part}": np.zeros((1, 2, 0, 64), np.float32)
             for layer in range(3) for part in ("key", "value")}  # fmt: skip
    return empty | {
        "inputs_embeds": noise.standard_normal((1, 30, 128)).astype(np.float32),
        "attention_mask": np.ones((1, 30), np.int64),
        "position_ids": np.arange(30)[None],
        "visual_mask": visual,
        "kept_length": np.array(18),
    }


def with_float_weights(folder: Path) -> onnx.ModelProto:
    """The quantized decoder with MatMul on dequantized weights in the place of each MatMulNBits."""
    model = onnx.load(folder / "decoder.onnx")
    weights = dict(dequantized_weights(folder / "weights/decoder.int4.safetensors"))
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            name = node.input[1].removesuffix(CODES)
            model.graph.initializer.append(onnx.numpy_helper.from_array(weights[name].T.copy(), name))
            replacement = onnx.helper.make_node("MatMul", [node.input[0], name], node.output)
            node.CopyFrom(replacement)
    return model


def test_either_form_computes_with_the_dequantized_weights(bundles):
    session = onnxruntime.InferenceSession(
        with_float_weights(bundles["MatMulNBits"]).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(["logits", "kept_index"], feeds())
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(
        "session.qdq_matmulnbits_accuracy_level", "1"
    )  # float arithmetic when fused
    for folder in bundles.values():
        decoder = onnxruntime.InferenceSession(
            folder / "decoder.onnx", options, providers=["CPUExecutionProvider"]
        )
        logits, kept_index = decoder.run(["logits", "kept_index"], feeds())
        np.testing.assert_array_equal(kept_index, expected[1])
        np.testing.assert_allclose(logits, expected[0], atol=2e-5 * np.abs(expected[0]).max())


def test_onnx_itself_reads_the_second_form_the_same_way(bundles):
    """One layer's weight through ONNX's reference implementation of blocked DequantizeLinear."""
    model = onnx.load(bundles["DequantizeLinear"] / "decoder.onnx")
    weights = dict(dequantized_weights(bundles["DequantizeLinear"] / "weights/decoder.int4.safetensors"))
    name = "model.language_model.layers.1.mlp.down_proj.weight"
    node = next(node for node in model.graph.node if name + CODES in node.input)
    held = [tensor for tensor in model.graph.initializer if tensor.name in node.input]
    output = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, None)
    node.output[0] = "w"
    graph = onnx.helper.make_graph([node], "one", [], [output], held)
    one = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)])
    np.testing.assert_array_equal(ReferenceEvaluator(one).run(None, {})[0], weights[name].T)


def test_only_linear_layers_of_the_decoder_are_quantized_and_nothing_is_stored_twice(bundles):
    folder = bundles["MatMulNBits"]
    with safe_open(folder / "weights/decoder.int4.safetensors", framework="numpy") as file:
        assert {key.split(".")[-3] for key in file.keys()} == {*LINEAR, "lm_head"}  # noqa: SIM118
    with safe_open(folder / "weights/decoder.fp32.safetensors", framework="numpy") as file:
        assert all("norm" in key for key in file.keys())  # noqa: SIM118
    assert sorted(path.name for path in (folder / "weights").iterdir()) == [
        "decoder.fp32.safetensors",
        "decoder.int4.safetensors",
        "embed_tokens.fp32.safetensors",
        "vision_encoder.fp32.safetensors",
    ]


@pytest.mark.long
def test_an_export_prints_what_is_quantized_and_what_stays(checkpoint, tmp_path):
    """The short checkpoint's MLP has 352 inputs, which blocks of 64 do not divide."""
    bundle = tmp_path / "bundle"
    said = " ".join(run("--model", checkpoint, "--quantize", "int4", "--output", bundle).stdout.split())
    assert "3 q_proj, 3 k_proj, 3 v_proj, 3 o_proj, 3 gate_proj, 3 up_proj, lm_head: blocks of 64" in said
    assert "down_proj.weight and 2 like it: 352 inputs are no multiple of the block size 64" in said
    assert json.loads((bundle / "manifest.json").read_text())["quantization"] == {"bits": 4, "block_size": 64}
    assert "int4, blocks of 64" in run("inspect", bundle).stdout
    answer = run("run", bundle, "--prompt", "Hello", "--max-new-tokens", "3", "--json").stdout
    assert len(json.loads(answer)["token_ids"]) == 3


@pytest.mark.long
def test_a_head_that_is_the_embedding_stays(checkpoint, tmp_path):
    tied = tmp_path / "tied"
    shutil.copytree(checkpoint, tied)
    config = json.loads((tied / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (tied / "config.json").write_text(json.dumps(config))
    with safe_open(tied / "model.safetensors", framework="numpy") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys() if key != "lm_head.weight"}  # noqa: SIM118
    save_file(tensors, tied / "model.safetensors")
    written = write_graphs(
        open_checkpoint(tied),
        PruningConfig(method="none"),
        "fp16",
        tmp_path,
        shutil.copyfile,
        quantize_as=QuantizeAs(Quantization(block_size=BLOCK), "MatMulNBits"),
    )
    assert len(written.quantized) == 3 * len(LINEAR)
    (reason,) = written.unquantized.values()
    assert "token embedding" in reason


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--block-size", "32"], "expected --block-size with --quantize"),
        (["--quantize", "int4", "--block-size", "48"], "expected --block-size 32, 64 or 128, found 48"),
        (["--quantize", "int4", "--weights", "link"], "expected no --weights link with --quantize"),
    ],
)
def test_options_that_do_nothing_are_refused(options, said, tmp_path):
    assert said in refused(*options, "--output", tmp_path / "b", folder=tmp_path)
