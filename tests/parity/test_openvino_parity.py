"""What OpenVINO makes of a bundle is judged like the rest: sound bundles pass, a wrong weight anywhere fails."""

import shutil
from pathlib import Path

import onnx
import pytest
from damaged_bundles import rewrite_manifest

from asap_export.errors import UserError
from asap_export.parity import verify
from asap_export.runtime.openvino_session import choose_precision

pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'asap-export[openvino]'")

IMAGES = (Path(__file__).parents[2] / "examples" / "images" / "mat.png",)


@pytest.mark.parametrize("name", ["pruned_bundle", "fp16_bundle", "dense_bundle"])
def test_a_sound_bundle_passes(name: str, request: pytest.FixtureRequest) -> None:
    bundle = request.getfixturevalue(name)
    report = verify(bundle, provider="openvino", precision="f32", max_new_tokens=4)
    assert report.verdict == "PASS", [check for check in report.checks if check.verdict == "FAIL"]
    assert {check.form for check in report.checks if check.level == "graphs"} >= {
        "decoder",
        "decoder.inlined",
    }


def test_where_it_computes_in_bf16_it_is_judged_by_bf16(pruned_bundle) -> None:
    if choose_precision() != "bf16":
        pytest.skip("this CPU has no instructions for bf16")
    report = verify(pruned_bundle, provider="openvino", images=IMAGES, max_new_tokens=2)
    assert (report.verdict, report.limit) == ("PASS", 8e-2)
    assert "computed in bf16" in report.notes[0]


@pytest.mark.parametrize(("part", "layer"), [("early", 1), ("late", 5)])
def test_a_weight_in_the_wrong_place_fails(pruned_bundle, tmp_path, part: str, layer: int) -> None:
    folder, file = tmp_path / "damaged", f"decoder.{part}.inlined.onnx"
    shutil.copytree(pruned_bundle, folder)
    model = onnx.load(folder / file, load_external_data=False)
    wrong, right = (f".layers.{number}.self_attn.k_proj.weight" for number in (layer - 1, layer))
    names = [weight.name for weight in model.graph.initializer]
    (other,) = (name for name in names if name.endswith(wrong))
    reader = next(node for node in model.graph.node if any(name.endswith(right) for name in node.input))
    reader.input[:] = [other if name.endswith(right) else name for name in reader.input]
    onnx.save(model, folder / file)
    rewrite_manifest(folder, file)
    report = verify(folder, provider="openvino", precision="f32", images=IMAGES, max_new_tokens=2)
    assert report.verdict == "FAIL"
    failed = {check.form for check in report.checks if check.verdict == "FAIL" and check.level == "graphs"}
    assert failed == {"decoder.inlined"}


def test_layers_cannot_be_left_out(pruned_bundle) -> None:
    with pytest.raises(UserError, match=r"^expected provider cpu or cuda with layers, found openvino, whose"):
        verify(pruned_bundle, provider="openvino", layers=3)
