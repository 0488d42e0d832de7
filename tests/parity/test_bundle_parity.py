"""A sound bundle passes; a bundle with a fault in it fails, whatever its selection would excuse."""

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
    return {(check.group, check.name) for check in report.checks if check.verdict == "FAIL"}


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
    groups = {check.group for check in report.checks}
    assert groups == {"inputs", "graphs", "cpu", "answers"} | (
        set() if name == "dense_bundle" else {"operators"}
    )
    names = {check.name for check in report.checks}
    assert {f"present.{layer}.key" for layer in range(LAYERS)} <= names
    cases = {check.case for check in report.checks}
    assert {"a batch", "no image", "two images", "a later turn with an image, turn 2"} <= cases
    saved = json.loads((bundle / "parity.json").read_text())
    assert saved["verdict"] == "PASS"
    assert len(saved["checks"]) == len(report.checks)


def test_half_precision_passes_or_says_how_close_the_choice_was(fp16_bundle):
    report = verify(fp16_bundle, provider="cpu", max_new_tokens=4)
    assert report.verdict != "FAIL", failures(report)
    for check in report.checks:
        if check.verdict == "AMBIGUOUS":
            assert "margin" in check.detail


def noise(model, value, size, frequency):
    """Nodes that make "noise" of a tensor: waves of up to 0.8 % of the largest ``size``, which is within the
    rounding of fp16 and far beyond fp32's."""
    for name, number in {"frequency": frequency, "part": 8e-3}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), name))
    return [
        helper.make_node("Mul", [value, "frequency"], ["angle"]),
        helper.make_node("Sin", ["angle"], ["wave"]),
        helper.make_node("ReduceMax", [size], ["largest"], keepdims=0),
        helper.make_node("Mul", ["largest", "part"], ["height"]),
        helper.make_node("Mul", ["wave", "height"], ["noise"]),
    ]


def noisy_scores(model):
    """Noise on the scores at the cut."""
    (topk,) = (node for node in model.graph.node if node.op_type == "AsapTopK")
    score = topk.input[0]
    nodes = [
        helper.make_node("Cast", [topk.input[1]], ["is_visual"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [score, "is_visual"], ["visual_score"]),
        *noise(model, score, "visual_score", 1e6),
        helper.make_node("Add", [score, "noise"], ["noisy"]),
    ]
    place = list(model.graph.node).index(topk)
    topk.input[0] = "noisy"
    for node in reversed(nodes):
        model.graph.node.insert(place, node)


def test_a_choice_within_rounding_is_ambiguous_and_hides_nothing(damage, fp16_bundle):
    report = verify(damage(fp16_bundle, noisy_scores), provider="cpu", images=IMAGES, max_new_tokens=2)
    ambiguous = [check for check in report.checks if check.verdict == "AMBIGUOUS"]
    forced = [check for check in report.checks if "kept set forced" in check.case]
    assert report.verdict == "AMBIGUOUS", failures(report)
    assert any(check.name == "kept_index" and "margin" in check.detail for check in ambiguous)
    assert forced
    assert all(check.verdict == "PASS" for check in forced)


def noisy_features(model):
    """Noise on the image features, in place of what another order of sums does."""
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["exact" if name == output.name else name for name in node.output]
    nodes = [
        helper.make_node("Cast", ["exact"], ["wide"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Abs", ["wide"], ["size"]),
        *noise(model, "wide", "size", 1e3),
        helper.make_node("Add", ["wide", "noise"], ["moved"]),
        helper.make_node("Cast", ["moved"], [output.name], to=onnx.TensorProto.FLOAT16),
    ]
    model.graph.node.extend(nodes)


def test_an_answer_whose_own_features_lead_to_another_close_choice_is_ambiguous(damage, fp16_bundle):
    """Graphs are compared on PyTorch's features, where choices agree; an answer works with the bundle's own."""
    noisy = damage(fp16_bundle, noisy_features, "vision_encoder.onnx")
    report = verify(noisy, provider="cpu", images=IMAGES, max_new_tokens=16)
    assert not failures(report)
    answers = [check for check in report.checks if check.group == "answers" and check.verdict == "AMBIGUOUS"]
    assert any("other visual tokens kept, cut margin" in check.detail for check in answers)


def test_the_same_choice_fails_where_rounding_is_finer(damage, pruned_bundle):
    report = verify(damage(pruned_bundle, noisy_scores), provider="cpu", images=IMAGES, max_new_tokens=1)
    assert report.verdict == "FAIL"
    assert ("graphs", "kept_index") in failures(report)


def test_wrong_scores_fail_even_where_choices_are_close(damage, fp16_bundle):
    """In fp16 some margin is always below rounding: that excuses a choice, not the scores it came from."""

    def reversed_scores(model):
        (topk,) = (node for node in model.graph.node if node.op_type == "AsapTopK")
        place = list(model.graph.node).index(topk)
        model.graph.node.insert(place, helper.make_node("Neg", [topk.input[0]], ["reversed"]))
        topk.input[0] = "reversed"

    report = verify(damage(fp16_bundle, reversed_scores), provider="cpu", images=IMAGES, max_new_tokens=1)
    assert report.verdict == "FAIL"
    assert ("graphs", "cut.score") in failures(report)


def test_a_fault_behind_an_ambiguous_choice_fails(damage, fp16_bundle):
    def both(model):
        noisy_scores(model)
        swapped_heads(model)

    report = verify(damage(fp16_bundle, both), provider="cpu", images=IMAGES, max_new_tokens=1)
    assert report.verdict == "FAIL"


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
        (wrong_lambda, ("operators", "AsapMask.bias")),
        (swapped_heads, ("graphs", "present.4.key")),
        (shifted_positions, ("graphs", "present.0.key")),
        (no_merging, ("operators", "AsapMerge.absorbed")),
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
    "fault, telltale", [(steep_attention, ("cpu", "logits")), (pale_mask, ("cpu", "present.2.key"))]
)
def test_a_fault_in_the_decoder_for_the_cpu_fails(fault, telltale, damage, pruned_bundle):
    damaged = damage(pruned_bundle, fault, "decoder.cpu.onnx")
    report = verify(damaged, provider="cpu", images=IMAGES, max_new_tokens=1)
    assert telltale in failures(report)
    assert not {group for group, _ in failures(report)} & {"graphs", "operators"}


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
    assert ("graphs", "logits") in failures(verify(folder, provider="cpu", images=IMAGES, max_new_tokens=1))


def test_another_checkpoint_is_refused(pruned_bundle, random_checkpoint, tmp_path):
    shutil.copytree(random_checkpoint, tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(UserError, match=r"the checkpoint that the bundle was made from.*config\.json"):
        verify(pruned_bundle, model=str(tmp_path / "other"))
