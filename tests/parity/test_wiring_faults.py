"""A part of what tools/plant_faults.py plants, of every kind: verify finds each; and what the generator makes."""

from collections import Counter
from pathlib import Path

import onnx
import pytest
from faults import FORMS, Fault, faults_of, plant
from PIL import Image

from asap_export.parity import verify
from asap_export.parity.forms import StoredGraph

BUNDLES = {"fp32": "pruned_bundle", "fp16": "fp16_bundle"}
ONNX, CPU = FORMS
KINDS = {
    *(
        "operator inputs",
        "choice",
        "kept_length",
        "behind the cut",
        "residual stream",
        "soft mask",
        "score row",
    ),
    *("caches", "layers", "positions and masks", "head", "attributes", "function bodies"),
}


@pytest.fixture(scope="session")
def planted(request):
    """Faults by bundle, made once."""
    made = {}

    def of(dtype):
        bundle = request.getfixturevalue(BUNDLES[dtype])
        if dtype not in made:
            made[dtype] = bundle, faults_of(bundle)
        return made[dtype]

    return of


@pytest.fixture(scope="session")
def picture(tmp_path_factory) -> Path:
    """One of few visual tokens."""
    path = tmp_path_factory.mktemp("pictures") / "small.png"
    things = Image.open(Path(__file__).parents[2] / "examples" / "images" / "things.png")
    things.convert("RGB").resize((56, 56)).save(path)
    return path


@pytest.mark.parametrize(
    "dtype, form, begins",
    [
        ("fp16", ONNX, "choice: AsapMerge.index is 0..K-1"),
        ("fp16", CPU, "choice: AsapTopK.visual_mask is the mask of valid tokens"),
        ("fp32", ONNX, "operator inputs: AsapMerge, input 3"),
        ("fp16", CPU, "operator inputs: SoftMaskedAttention, input 0"),
        ("fp32", CPU, "kept_length: -1 everywhere"),
        ("fp16", CPU, "behind the cut: position_ids gathered by top-k's index"),
        ("fp16", ONNX, "residual stream: AsapMerge reads"),
        ("fp16", CPU, "soft mask: none"),
        ("fp16", ONNX, "score row: the one before the last"),
        ("fp32", CPU, "caches: present: key of layers 0 and 1 change places"),
        ("fp32", ONNX, "layers: layers 1 and 2 change places"),
        ("fp16", ONNX, "attributes: AsapMask.lambda_max is 0.55 for 0.5"),
    ],
)
def test_a_wiring_fault_fails(dtype, form, begins, planted, picture, tmp_path):
    bundle, (faults, _) = planted(dtype)
    fault = next(fault for fault in faults if str(fault).startswith(f"{form}: {begins}"))
    folder = plant(fault, bundle, tmp_path / "planted")
    assert verify(folder, provider="cpu", images=(picture,), max_new_tokens=1).verdict == "FAIL", str(fault)


def test_faults_of_every_kind_are_planted_in_both_forms(planted):
    _, (faults, equal) = planted("fp32")
    names = [str(fault) for fault in faults]
    assert len(names) == len(set(names))
    assert equal > 0
    for form in FORMS:
        counts = Counter(fault.kind for fault in faults if fault.form == form)
        assert set(counts) == KINDS | ({"whether to cut"} if form == CPU else set())
        operators = {fault.name.split(",")[0] for fault in faults if fault.kind == "operator inputs"}
        assert operators >= {"AsapMask", "AsapScore", "AsapTopK", "AsapMerge", "SoftMaskedAttention"}


@pytest.mark.parametrize("form", FORMS)
def test_a_planted_decoder_differs_and_can_be_loaded(form, planted):
    bundle, (faults, _) = planted("fp32")
    sound = onnx.load(bundle / form, load_external_data=False)
    untouched = Fault("", "", form, lambda decoder: None).apply(sound)
    by_kind = {fault.kind: fault for fault in faults if fault.form == form}
    for fault in by_kind.values():
        model = fault.apply(sound)
        assert _wiring(model) != _wiring(untouched), str(fault)
        StoredGraph(model, bundle).open()


def _wiring(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return [str(node) for node in nodes], [value.name for value in model.graph.output]
