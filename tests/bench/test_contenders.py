"""Who takes part in a measurement, and under what name."""

import pytest

from asap_export.bench import contenders, resident
from asap_export.bench.bundle_model import open_bundle
from asap_export.bench.contenders import bundle_contenders
from asap_export.bench.records import Workload
from asap_export.bench.staged import StagedRunner
from asap_export.bench.workload import drawn_images
from asap_export.bundle import Bundle
from asap_export.model.anyres import TileGeometry


def test_openvino_is_measured_beside_onnx_runtime_and_names_its_precision(
    pruned_bundle, dense_bundle, monkeypatch
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'asap-export[openvino]'")
    monkeypatch.setattr(
        contenders, "choose_precision", lambda asked, threads: {"auto": "bf16", "f32": "f32"}[asked]
    )
    bundles = [Bundle.open(path) for path in (pruned_bundle, dense_bundle)]
    found = bundle_contenders(bundles, "openvino")
    assert [each.computes for each in found] == ["f32", "f32", "bf16", "bf16"]
    assert [each.precision for each in bundle_contenders(bundles, "openvino", "f32")[2:]] == ["f32", "f32"]
    assert [(each.name, each.provider, each.dtype, each.family) for each in found] == [
        ("pruned", "cpu", "fp32", "bundle fp32"),
        ("dense", "cpu", "fp32", "bundle fp32"),
        ("pruned-openvino", "openvino", "bf16", "openvino bf16"),
        ("dense-openvino", "openvino", "bf16", "openvino bf16"),
    ]


def test_a_bundle_in_openvino_goes_on_from_any_length(pruned_bundle, tmp_path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'asap-export[openvino]'")
    model = open_bundle(pruned_bundle, 1, "openvino")
    images = drawn_images(tmp_path, 100, 1, TileGeometry.of(model.spec))
    runner = StagedRunner(model, resident)
    sample = runner.prefill(Workload(tuple(map(str, images)), "What is it?", 100, 9, 20), 4)
    assert len(sample["decode"]) == 3
    spec = model.spec
    per_token = 4 * spec.layers  # bytes of a key's number: on one thread OpenVINO computes in float32
    assert sample["kv_bytes"] == 2 * (20 + 9) * spec.kv_heads * spec.head_dim * per_token
    assert sample["kv_held_bytes"] >= sample["kv_bytes"]
    runner.cache(7)
    assert len(runner.decode(7, 2)) == len(runner.decode(7, 2)) == 2
