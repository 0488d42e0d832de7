"""The decoder without functions: its parts, one after the other, compute what ``decoder.onnx`` does."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from short_checkpoint import write_short_checkpoint

from asap_export.bundle import Bundle
from asap_export.exporter import ExportRequest, export
from asap_export.runtime.chain import ChainedSession, Link
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession

IMAGES = Path(__file__).parents[2] / "examples" / "images"


def chained(bundle: Bundle) -> ChainedSession:
    links = []
    for file in bundle.inlined_decoder:
        inputs = [value.name for value in onnx.load(file, load_external_data=False).graph.input]
        links.append(Link(OnnxRuntimeSession(file), inputs))
    return ChainedSession(links, [output.name for output in bundle.manifest.graphs["decoder"].outputs])


def prompt(bundle: Bundle, rows: int = 2, text: int = 5) -> dict[str, np.ndarray]:
    """Any embeddings: a row with padding, an image in each, and caches of three tokens."""
    model, rng = bundle.manifest.model, np.random.default_rng(1)
    dtype = {"fp32": np.float32, "fp16": np.float16}[bundle.manifest.dtype]
    visual, past = 30, 3
    new = visual + text
    mask = np.ones((rows, past + new), np.int64)
    mask[0, past : past + 2] = 0
    inputs = {
        "inputs_embeds": rng.standard_normal((rows, new, model.hidden_size)).astype(dtype),
        "attention_mask": mask,
        "position_ids": np.arange(past, past + new)[None].repeat(rows, 0),
    }
    if bundle.manifest.pruning.prunes:
        shown = np.zeros((rows, new), bool)
        shown[:, 3 : 3 + visual] = True
        inputs |= {"visual_mask": shown, "kept_length": np.array(12 + text, np.int64)}
        if not bundle.manifest.pruning.trim_early_kv:
            inputs["early_attention_mask"] = mask
    for layer in range(model.layers):
        for part in ("key", "value"):
            shape = rows, model.kv_heads, past, model.head_dim
            inputs[f"past_key_values.{layer}.{part}"] = rng.standard_normal(shape).astype(dtype)
    return inputs


@pytest.mark.parametrize("name", ["pruned_bundle", "dense_bundle", "untrimmed_bundle", "fp16_bundle"])
def test_it_computes_what_the_decoder_does(name: str, request: pytest.FixtureRequest) -> None:
    bundle = Bundle.open(request.getfixturevalue(name))
    inputs = prompt(bundle)
    outputs = [output.name for output in bundle.manifest.graphs["decoder"].outputs]
    whole = OnnxRuntimeSession(bundle.graph_path("decoder")).run(inputs, outputs)
    found = chained(bundle).run(inputs, outputs)
    limit = 0 if bundle.manifest.dtype == "fp32" else 2e-3  # masks add numbers where they hid places
    for name in outputs:
        np.testing.assert_allclose(found[name], whole[name], rtol=limit, atol=2e-6 + limit, err_msg=name)


@pytest.mark.parametrize("name", ["pruned_bundle", "untrimmed_bundle", "fp16_bundle"])
def test_steps_have_a_graph_of_their_own_that_computes_the_same(
    name: str, request: pytest.FixtureRequest
) -> None:
    bundle = Bundle.open(request.getfixturevalue(name))
    assert bundle.inlined_step is not None
    step = onnx.load(bundle.inlined_step, load_external_data=False).graph
    assert {"If", "Loop", "Scan", "TopK"}.isdisjoint(node.op_type for node in step.node)
    inputs = prompt(bundle, text=5)
    whole = OnnxRuntimeSession(bundle.inlined_decoder[0])
    names = [value.name for value in step.input]
    given = {
        name: value[:, -1:] if name in ("inputs_embeds", "position_ids", "visual_mask") else value
        for name, value in inputs.items()
    }
    for name in names:  # one new token behind three cached ones
        if name.endswith("attention_mask"):
            given[name] = np.concatenate([inputs[name][:, :3], inputs[name][:, -1:]], axis=1)
    given = {name: given[name] for name in names} | {"kept_length": np.array(1, np.int64)}
    outputs = [value.name for value in step.output]
    found = OnnxRuntimeSession(bundle.inlined_step).run(given, outputs)
    expected = whole.run(given, outputs)
    limit = 0 if bundle.manifest.dtype == "fp32" else 2e-3
    for name in outputs:
        np.testing.assert_allclose(found[name], expected[name], rtol=limit, atol=2e-6 + limit, err_msg=name)


@pytest.mark.parametrize("name", ["pruned_bundle", "dense_bundle"])
def test_it_has_no_functions_and_small_files(name: str, request: pytest.FixtureRequest) -> None:
    files = Bundle.open(request.getfixturevalue(name)).inlined_decoder
    assert [file.name for file in files] == (
        ["decoder.inlined.onnx"]
        if name == "dense_bundle"
        else ["decoder.early.inlined.onnx", "decoder.late.inlined.onnx"]
    )
    for file in files:
        model = onnx.load(file, load_external_data=False)
        assert not model.functions
        assert {node.domain for node in model.graph.node} <= {"", "com.microsoft"}
        assert file.stat().st_size < 300_000
        assert ort.InferenceSession(file).get_inputs()


def test_weights_may_be_links(tmp_path) -> None:
    """onnx's checker takes no file that has several."""
    checkpoint = str(write_short_checkpoint(tmp_path / "checkpoint"))
    bundle = export(
        ExportRequest(checkpoint, output=tmp_path / "bundle", dtype="fp16", weights="link")
    ).bundle
    assert any(file.stat().st_nlink > 1 for file in (bundle.path / "weights").iterdir())
    inputs = prompt(bundle)
    assert chained(bundle).run(inputs, ["logits"])["logits"].shape[0] == 2
