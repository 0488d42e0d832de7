"""The graph files of a bundle, as a user of them finds them."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from asap_export.checkpoint.checkpoint import open_checkpoint
from asap_export.checkpoint.loading import load_model
from asap_export.checkpoint.shards import read_shard
from asap_export.errors import UserError
from asap_export.graph.preprocess import PREPROCESS
from asap_export.graph.trace import GRAPHS
from asap_export.graph.weights import place_weights
from asap_export.graph.write import CPU_DECODER, write_graphs
from asap_export.model.reference import Reference
from asap_export.pruning.config import PruningConfig

LAYERS = 8


def load(bundle, name):
    return onnx.load(bundle / f"{name}.onnx", load_external_data=False)


def dims(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("bundle_name", ["pruned_bundle", "fp16_bundle", "dense_bundle", "untrimmed_bundle"])
@pytest.mark.parametrize("name", (PREPROCESS, *GRAPHS, CPU_DECODER.removesuffix(".onnx")))
def test_every_graph_passes_onnx_checks(bundle_name, name, request):
    """Nodes in topological order among them, which the checker demands of graphs, subgraphs and functions."""
    path = request.getfixturevalue(bundle_name) / f"{name}.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert next(opset.version for opset in model.opset_import if opset.domain == "") >= 23
    assert model.graph.doc_string
    assert all(value.doc_string for value in (*model.graph.input, *model.graph.output))
    assert b"stack_trace" not in model.SerializeToString()


def test_the_decoder_has_named_dimensions_and_one_input_for_each_thing(pruned_bundle):
    graph = load(pruned_bundle, "decoder").graph
    inputs = {value.name: dims(value) for value in graph.input}
    assert list(inputs)[:5] == [
        "inputs_embeds",
        "attention_mask",
        "position_ids",
        "visual_mask",
        "kept_length",
    ]
    assert inputs["inputs_embeds"] == ["batch", "sequence", 128]
    assert inputs["attention_mask"] == ["batch", "total_sequence"]
    assert inputs["kept_length"] == []
    assert inputs["past_key_values.7.value"] == ["batch", 2, "past_sequence", 64]
    outputs = {value.name: dims(value) for value in graph.output}
    assert outputs["logits"] == ["batch", 1, 1024]
    assert outputs["kept_index"] == ["batch", "kept_sequence"]
    assert outputs["present.7.value"] == ["batch", 2, "present_sequence", 64]
    assert len(inputs) == 5 + 2 * LAYERS


def test_untrimmed_caches_have_lengths_of_their_own(untrimmed_bundle):
    inputs = {value.name: dims(value) for value in load(untrimmed_bundle, "decoder").graph.input}
    assert inputs["early_attention_mask"] == ["batch", "early_total_sequence"]
    assert inputs["past_key_values.1.key"] == ["batch", 2, "early_past_sequence", 64]
    assert inputs["past_key_values.2.key"] == ["batch", 2, "past_sequence", 64]


def test_the_dense_decoder_has_nothing_to_prune_with(dense_bundle):
    model = load(dense_bundle, "decoder")
    assert {"visual_mask", "kept_length"}.isdisjoint(value.name for value in model.graph.input)
    assert not model.functions
    assert {opset.domain for opset in model.opset_import} == {""}


def test_nodes_stay_whole(pruned_bundle):
    model = load(pruned_bundle, "decoder")
    count = Counter(node.op_type for node in model.graph.node)
    assert count["Attention"] == LAYERS
    assert count["RMSNormalization"] == 2 * LAYERS + 1
    assert count["RotaryEmbedding"] == 2 * LAYERS
    assert [count[f"Asap{name}"] for name in ("Mask", "Score", "TopK", "Merge")] == [1, 1, 1, 1]
    assert not count["Pow"] + count["ReduceMean"] + count["Softmax"]
    vision = Counter(node.op_type for node in load(pruned_bundle, "vision_encoder").graph.node)
    assert (vision["Attention"], vision["LayerNormalization"]) == (
        2,
        5,
    )  # the third layer's output is not used


def test_weights_are_references_and_stored_dtypes_are_not_converted(fp16_bundle, pruned_bundle):
    for bundle, file in (
        (fp16_bundle, "weights/model.safetensors"),
        (pruned_bundle, "weights/decoder.fp32.safetensors"),
    ):
        graph = load(bundle, "decoder").graph
        places = {
            entry.value
            for tensor in graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
        assert places == {file}
        assert (bundle / "decoder.onnx").stat().st_size < 200_000


@pytest.mark.long
def test_tied_embeddings_are_one_weight(random_checkpoint, tmp_path):
    """Qwen2-like checkpoints share the head with the embedding."""
    model = load_model(open_checkpoint(random_checkpoint), "fp32")
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path / "tied")
    for file in random_checkpoint.glob("*token*"):
        (tmp_path / "tied" / file.name).write_bytes(file.read_bytes())
    checkpoint = open_checkpoint(tmp_path / "tied")
    copies = []

    def copy(source, relative):
        if relative not in copies:
            copies.append(relative)
            (tmp_path / relative).parent.mkdir(exist_ok=True)
            (tmp_path / relative).write_bytes(source.read_bytes())

    write_graphs(checkpoint, PruningConfig(method="none"), "fp32", tmp_path, copy)

    session = onnxruntime.InferenceSession(tmp_path / "decoder.onnx", providers=["CPUExecutionProvider"])
    reference = Reference(load_model(checkpoint, "fp32"), PruningConfig(method="none"))
    ids = torch.tensor([[5, 9, 200]])
    embeds = reference.embedding(ids, torch.zeros(0, 128)).detach()
    expected, _ = reference.advance(embeds, torch.ones_like(ids), ids == 3, 0, reference.empty_context(1))
    empty = {f"past_key_values.{layer}.{part}": np.zeros((1, 2, 0, 64), np.float32)
             for layer in range(LAYERS) for part in ("key", "value")}  # fmt: skip
    feeds = {"inputs_embeds": embeds.numpy(), "attention_mask": np.ones((1, 3), np.int64)}
    logits = session.run(["logits"], feeds | empty | {"position_ids": np.arange(3)[None]})[0]
    np.testing.assert_allclose(logits, expected.logits.numpy(), rtol=1e-4, atol=1e-4)


def test_a_weight_that_overflows_fp16_is_named(tmp_path):
    import onnx_ir as ir
    from safetensors.torch import save_file

    save_file({"big": torch.tensor([1.0, 70000.0])}, tmp_path / "model.safetensors")
    (place,) = read_shard(tmp_path / "model.safetensors")
    weight = ir.Value(name="big", type=ir.TensorType(ir.DataType.FLOAT16), shape=ir.Shape([2]))
    model = ir.Model(ir.Graph([weight], [], nodes=[], name="graph", opset_imports={"": 23}), ir_version=11)
    with pytest.raises(UserError, match=r"values of big to fit into fp16, found 70000"):
        place_weights(model, {"big": place}, "fp16", tmp_path, lambda source, relative: None)


def test_rotary_frequencies_are_real_numbers(pruned_bundle):
    graph = load(pruned_bundle, "decoder").graph
    held = [numpy_helper.to_array(tensor) for tensor in graph.initializer if not tensor.external_data]
    frequencies = [value for value in held if value.shape == (32,)]
    assert len(frequencies) == 1
    np.testing.assert_allclose(frequencies[0], 10000.0 ** (-np.arange(0, 64, 2) / 64), rtol=1e-6)
