"""A sound bundle passes; a bundle with a fault in it fails, however close a choice of tokens was."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from damaged_bundles import rewrite_manifest
from onnx import helper, numpy_helper

from asap_export.errors import UserError
from asap_export.parity import verify

LAYERS = 8
IMAGES = (
    Path(__file__).parents[2] / "examples" / "images" / "mat.png",
)  # one picture is enough to find a fault


def failures(report):
    return {(check.form, check.name) for check in report.checks if check.verdict == "FAIL"}


@pytest.fixture
def damage(tmp_path):
    """A copy of a bundle, a form of whose decoder is changed by a function; its manifest is made to fit."""

    def damage(bundle, change, file="decoder.onnx"):
        folder = tmp_path / "damaged"
        shutil.copytree(bundle, folder)
        path = folder / file
        model = onnx.load(path, load_external_data=False)
        change(model)
        path.write_bytes(model.SerializeToString())
        rewrite_manifest(folder, file)
        return folder

    return damage


@pytest.mark.parametrize(
    "name, images", [("pruned_bundle", ()), ("dense_bundle", IMAGES), ("untrimmed_bundle", IMAGES)]
)
def test_a_sound_bundle_passes(name, images, request):
    bundle = request.getfixturevalue(name)
    report = verify(bundle, provider="cpu", images=images, max_new_tokens=8)

    assert report.verdict == "PASS", failures(report)
    levels = {check.level for check in report.checks}
    assert levels == {"inputs", "graphs", "answers"} | (
        set() if name == "dense_bundle" else {"operators", "cut"}
    )
    assert {check.form for check in report.checks} == {"", "decoder", "decoder.cpu"}
    names = {check.name for check in report.checks}
    assert {f"present.{layer}.key" for layer in range(LAYERS)} <= names
    cases = {check.case for check in report.checks}
    assert {"a batch", "no image", "two images", "a later turn with an image, turn 2"} <= cases
    if name != "dense_bundle":
        assert {"all but one token kept", "a batch, one row kept whole"} <= cases
    saved = json.loads((bundle / "parity.json").read_text())
    assert saved["verdict"] == "PASS"
    assert len(saved["checks"]) == len(report.checks)


def noisy_layer(model):
    """Waves of up to 0.15 % of the largest value on what the second layer is given: within the rounding of fp16,
    far beyond fp32's."""
    (norm,) = (node for node in model.graph.node if "layers.1.input_layernorm.weight" in str(node.input))
    value, place = norm.input[0], list(model.graph.node).index(norm)
    kind = next(info.type.tensor_type.elem_type for info in model.graph.input if info.name == "inputs_embeds")
    for name, number in {"frequency": 1e3, "part": 1.5e-3}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), name))
    nodes = [
        helper.make_node("Cast", [value], ["wide"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "frequency"], ["angle"]),
        helper.make_node("Sin", ["angle"], ["wave"]),
        helper.make_node("Abs", ["wide"], ["size"]),
        helper.make_node("ReduceMax", ["size"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["largest", "part"], ["height"]),
        helper.make_node("Mul", ["wave", "height"], ["noise"]),
        helper.make_node("Add", ["wide", "noise"], ["moved"]),
        helper.make_node("Cast", ["moved"], ["noisy"], to=kind),
    ]
    for node in list(model.graph.node)[place:]:
        node.input[:] = ["noisy" if name == value else name for name in node.input]
    for node in reversed(nodes):
        model.graph.node.insert(place, node)


def test_another_kept_set_that_rounding_explains_is_a_near_tie(damage, fp16_bundle):
    report = verify(damage(fp16_bundle, noisy_layer), provider="cpu", max_new_tokens=2)
    assert report.verdict == "PASS", failures(report)
    ties = [check for check in report.checks if check.near_tie and check.form == "decoder"]
    assert ties and report.near_ties >= len(ties)
    assert all(
        check.name == "kept_index" and "kept visual tokens are PyTorch's" in check.detail for check in ties
    )


def test_the_same_difference_fails_where_rounding_is_finer(damage, pruned_bundle):
    report = verify(damage(pruned_bundle, noisy_layer), provider="cpu", images=IMAGES, max_new_tokens=1)
    assert report.verdict == "FAIL"
    assert {("decoder", "AsapMask.query"), ("decoder", "AsapMerge.hidden")} <= failures(report)


def reversed_scores(model):
    """The lowest scores are the highest."""
    (topk,) = (node for node in model.graph.node if node.op_type == "AsapTopK")
    place = list(model.graph.node).index(topk)
    model.graph.node.insert(place, helper.make_node("Neg", [topk.input[0]], ["reversed"]))
    topk.input[0] = "reversed"


def first_tokens(model):
    """The first K tokens are kept, whatever the scores say."""
    (merge,) = (node for node in model.graph.node if node.op_type == "AsapMerge")
    place = list(model.graph.node).index(merge)
    ones, count = "ones_to_count", "places"
    model.graph.initializer.append(numpy_helper.from_array(np.array(1), "one_place"))
    nodes = [
        helper.make_node("Mul", [merge.input[1], "nothing"], ["zeros"]),
        helper.make_node("Add", ["zeros", "one_place"], [ones]),
        helper.make_node("CumSum", [ones, "one_place"], [count], exclusive=1),
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.array(0), "nothing"))
    merge.input[1] = count
    for node in reversed(nodes):
        model.graph.node.insert(place, node)


def text_may_leave(model):
    """Every valid token passes for a visual one."""
    (topk,) = (node for node in model.graph.node if node.op_type == "AsapTopK")
    topk.input[1] = topk.input[2]


@pytest.mark.parametrize(
    "fault, telltale",
    [
        (reversed_scores, "AsapTopK.score"),
        (first_tokens, "AsapMerge.index"),
        (text_may_leave, "AsapTopK.visual_mask"),
    ],
)
def test_a_wrong_choice_fails_although_rounding_could_have_changed_it(fault, telltale, damage, fp16_bundle):
    """In fp16 some margin is always below rounding: that excuses no choice that the graph's own numbers do not
    lead to."""
    report = verify(damage(fp16_bundle, fault), provider="cpu", images=IMAGES, max_new_tokens=1)
    assert report.verdict == "FAIL"
    assert ("decoder", telltale) in failures(report)
    assert not {form for form, _ in failures(report)} - {"decoder"}


def test_a_fault_behind_a_near_tie_fails(damage, fp16_bundle):
    def both(model):
        noisy_layer(model)
        swapped_heads(model)

    report = verify(damage(fp16_bundle, both), provider="cpu", images=IMAGES, max_new_tokens=1)
    assert report.verdict == "FAIL"
    assert ("decoder", "present.4.key") in failures(report)


def test_a_graph_that_cannot_run_fails(damage, pruned_bundle):
    def beyond(model):
        (merge,) = (node for node in model.graph.node if node.op_type == "AsapMerge")
        place = list(model.graph.node).index(merge)
        model.graph.initializer.append(numpy_helper.from_array(np.array(10**6), "far"))
        model.graph.node.insert(place, helper.make_node("Add", [merge.input[1], "far"], ["beyond"]))
        merge.input[1] = "beyond"

    report = verify(damage(pruned_bundle, beyond), provider="cpu", images=IMAGES, max_new_tokens=1)
    assert ("decoder", "run") in failures(report)


def wrong_lambda(model):
    """λ_max 0.6 where the bundle says 0.5, in the body of one function."""
    (body,) = (function for function in model.functions if function.name == "Salience")
    (constant,) = (node for node in body.node if node.output[0] == "lambda_constant")
    del constant.attribute[:]
    constant.attribute.append(helper.make_attribute("value_float", 0.6))


def swapped_heads(model):
    """Queries of heads 0 and 1 of layer 3 change places before attention."""
    attention = [node for node in model.graph.node if node.op_type == "Attention"][3]
    order = numpy_helper.from_array(np.array([1, 0, 2, 3]), "swapped_order")
    model.graph.initializer.append(order)
    swap = helper.make_node("Gather", [attention.input[0], "swapped_order"], ["swapped"], axis=1)
    attention.input[0] = "swapped"
    place = list(model.graph.node).index(attention)
    model.graph.node.insert(place, swap)


def shifted_positions(model):
    """Every position id is one too large."""
    for node in model.graph.node:
        for number, name in enumerate(node.input):
            if name == "position_ids":
                node.input[number] = "shifted"
    model.graph.initializer.append(numpy_helper.from_array(np.array(1), "one_more"))
    model.graph.node.insert(0, helper.make_node("Add", ["position_ids", "one_more"], ["shifted"]))


def no_merging(model):
    """A threshold that no pair of tokens reaches."""
    (node,) = (node for node in model.graph.node if node.op_type == "AsapMerge")
    node.attribute[0].f = 2.0


@pytest.mark.parametrize(
    "fault, telltale",
    [
        (wrong_lambda, ("decoder", "AsapMask.bias")),
        (swapped_heads, ("decoder", "present.4.key")),
        (shifted_positions, ("decoder", "present.0.key")),
        (no_merging, ("decoder", "AsapMerge.absorbed")),
        (no_merging, ("decoder", "settings")),
    ],
)
def test_a_deliberate_fault_fails(fault, telltale, damage, pruned_bundle):
    report = verify(damage(pruned_bundle, fault), provider="cpu", images=IMAGES, max_new_tokens=1)
    assert report.verdict == "FAIL"
    assert telltale in failures(report)


def steep_attention(model):
    """The scale of one layer's fused attention is a tenth too large."""
    node = [node for node in model.graph.node if node.op_type == "CausalAttention"][3]
    (scale,) = (attribute for attribute in node.attribute if attribute.name == "scale")
    scale.f *= 1.1


def pale_mask(model):
    """λ_max 0.05 where the bundle says 0.5."""
    (node,) = (node for node in model.graph.node if node.op_type == "SoftMaskedAttention")
    (largest,) = (attribute for attribute in node.attribute if attribute.name == "lambda_max")
    largest.f = 0.05


@pytest.mark.parametrize(
    "fault, telltale",
    [
        (steep_attention, ("decoder.cpu", "logits")),
        (pale_mask, ("decoder.cpu", "SoftMaskedAttention.output")),
    ],
)
def test_a_fault_in_the_decoder_for_the_cpu_fails(fault, telltale, damage, pruned_bundle):
    damaged = damage(pruned_bundle, fault, "decoder.cpu.onnx")
    report = verify(damaged, provider="cpu", images=IMAGES, max_new_tokens=1)
    assert telltale in failures(report)
    assert {form for form, _ in failures(report)} == {"decoder.cpu"}


def test_a_swapped_weight_fails(pruned_bundle, tmp_path):
    """Two rows of a weight file change places; the manifest is made to fit."""
    folder = tmp_path / "damaged"
    shutil.copytree(pruned_bundle, folder)
    (name,) = (str(path.relative_to(folder)) for path in folder.glob("weights/decoder*"))
    content = bytearray((folder / name).read_bytes())
    row = 128 * 4  # bytes of one row of the head
    content[-row:], content[-2 * row : -row] = content[-2 * row : -row], content[-row:]
    (folder / name).write_bytes(content)
    rewrite_manifest(folder, name)
    assert ("decoder", "logits") in failures(verify(folder, provider="cpu", images=IMAGES, max_new_tokens=1))


def test_another_checkpoint_is_refused(pruned_bundle, random_checkpoint, tmp_path):
    shutil.copytree(random_checkpoint, tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(UserError, match=r"the checkpoint that the bundle was made from.*config\.json"):
        verify(pruned_bundle, model=str(tmp_path / "other"))
