"""Pixel values and token ids that programs without transformers get from a bundle, and faults in their making."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from damaged_bundles import rewrite_manifest
from onnx import helper, numpy_helper

from asap_export.bundle import Bundle
from asap_export.bundle.folder import read_manifest
from asap_export.model.anyres import TileGeometry
from asap_export.parity.cases import built_in_cases, prompt_of
from asap_export.parity.input_checks import InputChecks
from asap_export.parity.processor_reader import ProcessorReader
from asap_export.parity.recording import RecordedTurn
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession
from asap_export.runtime.prompt import BundleReader

IMAGES = [Path(__file__).parents[2] / "examples" / "images" / name for name in ("mat.png", "tower.png")]


def checked(folder):
    """Checks of the built-in cases with two pictures; of what is recorded of them only the prompts matter."""
    bundle = Bundle.open(folder)
    model = bundle.manifest.model
    preprocess = OnnxRuntimeSession(bundle.graph_path("preprocess"))
    reader, reference = BundleReader(bundle, preprocess), ProcessorReader(bundle.processor_path, model)
    inputs, checks = InputChecks(bundle, reader, reference), []
    for case in built_in_cases(TileGeometry.of(model), IMAGES):
        prompts = [
            prompt_of(questions, reference.processor, TileGeometry.of(model)) for questions in case.turns
        ]
        turns = [
            RecordedTurn(f"{case.name}, turn {i + 1}", turn, None, 1) for i, turn in enumerate(case.turns)
        ]
        for turn in turns:
            turn.prompts = [
                reader.read(question.marked_text(reader.image_token), question.images, template=False)
                for question in turn.questions
            ]
        checks += inputs.of(case, turns, prompts)
    return checks


def failures(folder):
    return {(check.name, check.case) for check in checked(folder) if check.verdict == "FAIL"}


@pytest.fixture
def copy(pruned_bundle, tmp_path):
    return shutil.copytree(pruned_bundle, tmp_path / "copy")


@pytest.mark.parametrize("name", ["pruned_bundle", "llava_1_5_bundle"])
def test_a_sound_bundle_makes_transformers_inputs(name, request):
    checks = checked(request.getfixturevalue(name))
    assert {check.verdict for check in checks} == {"PASS"}
    assert {check.name for check in checks} == {"preprocess: pixel_values", "prompt: token ids"}
    assert {check.case for check in checks} >= {"no image", "a batch, turn 1", "a later turn with an image"}


def narrow_filter(model):
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "cubic_coeff_a":
                attribute.f = -0.75


def tiles_in_columns(model):
    (cut,) = (
        node for node in model.graph.node if node.op_type == "Transpose" and len(node.attribute[0].ints) == 5
    )
    cut.attribute[0].ints[:] = [3, 1, 0, 2, 4]


def blue_first(model):
    """The image's channels change places before anything else."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "order"))
    for node in model.graph.node:
        if node.op_type == "Transpose" and node.input[0] == "image":
            node.input[0] = "turned"
    model.graph.node.insert(0, helper.make_node("Gather", ["image", "order"], ["turned"], axis=2))


@pytest.mark.parametrize("fault", [narrow_filter, tiles_in_columns, blue_first])
def test_a_fault_in_the_preprocessing_fails(fault, copy):
    path = copy / "preprocess.onnx"
    model = onnx.load(path)
    fault(model)
    onnx.save(model, path)
    rewrite_manifest(copy, "preprocess.onnx")
    assert {name for name, _ in failures(copy)} == {"preprocess: pixel_values"}


def test_two_words_that_change_places_fail(copy):
    path = copy / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    one, other = sorted(word for word in vocabulary if word.endswith(("What", "Where")))[:2]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    rewrite_manifest(copy, "tokenizer.json")
    assert {name for name, _ in failures(copy)} == {"prompt: token ids"}


@pytest.mark.parametrize(
    ("place", "change", "cases"),
    [
        ("first", {"end": "ASSISTANT:"}, 9),
        ("first", {"image": ""}, 8),
        ("later", {"start": "USER: "}, 1),
    ],
)
def test_another_template_fails(place, change, cases, copy):
    manifest = read_manifest(copy)
    template = manifest.prompt.template
    parts = replace(getattr(template, place), **change)
    prompt = replace(manifest.prompt, template=replace(template, **{place: parts}))
    (copy / "manifest.json").write_text(replace(manifest, prompt=prompt).text())
    found = failures(copy)
    assert {name for name, _ in found} == {"prompt: token ids"} and len(found) == cases


def test_without_a_template_the_whole_prompt_is_compared(copy):
    manifest = read_manifest(copy)
    (copy / "manifest.json").write_text(
        replace(manifest, prompt=replace(manifest.prompt, template=None)).text()
    )
    assert not failures(copy)
