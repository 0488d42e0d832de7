"""A quantized bundle: its export error is compared, what quantization costs is told beside it."""

import json
from typing import get_args

import numpy as np
import onnx
import pytest
from damaged_bundles import change_tensor
from short_checkpoint import write_short_checkpoint

from asap_export.exporter import ExportRequest, export
from asap_export.parity import verify
from asap_export.spec import QUANTIZATIONS, CpuPass, Quantization

CODES = "model.language_model.layers.1.mlp.up_proj.weight.codes"
SCALES = "model.language_model.layers.1.mlp.up_proj.weight.scales"


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    return str(write_short_checkpoint(tmp_path_factory.mktemp("short") / "checkpoint"))


@pytest.fixture(scope="module")
def quantized(short, tmp_path_factory):
    """Three layers, fp32, int4."""
    folder = tmp_path_factory.mktemp("int4") / "bundle"
    quantization = Quantization(block_size=32)
    return export(ExportRequest(short, output=folder, dtype="fp32", quantization=quantization)).bundle.path


def failed(report):
    return {(check.level, check.name) for check in report.checks if check.verdict == "FAIL"}


def test_the_export_error_is_as_small_as_ever_and_the_quantization_error_is_told(quantized):
    report = verify(quantized, provider="cpu", layers=3, max_new_tokens=4)
    assert report.verdict == "PASS", failed(report)
    error = report.quantization
    assert error is not None
    assert (error.bits, error.block_size, error.weights) == (4, 32, 3 * 7 + 1)
    # Rounding in steps of an eighth of a block's largest value: normal weights lose a tenth of their norm.
    assert 0.05 < error.weight_mean < error.weight_worst < 0.2
    assert 0.01 < error.logits < 1 and 0.01 < error.hidden < 1
    assert 0.5 < error.kept < 1 and 0 <= error.tokens <= 1
    saved = json.loads((quantized / "parity.json").read_text())
    assert saved["quantization"]["worst_weight"] == error.worst_weight


def test_8_bits_cost_little(short, tmp_path):
    """The verdict is about the graphs with exact activations; rounding them is left out, and said."""
    request = ExportRequest(short, output=tmp_path / "int8", dtype="fp32", quantization=QUANTIZATIONS["int8"])
    report = verify(export(request).bundle.path, provider="cpu", layers=3, max_new_tokens=4)
    assert report.verdict == "PASS", failed(report)
    error = report.quantization
    assert error is not None
    assert (error.bits, error.block_size, error.weights) == (8, None, 3 * 7 + 1)
    # Rounding in steps of a 127th of an output's largest value.
    assert 0.003 < error.weight_mean < error.weight_worst < 0.02
    assert 0 < error.logits < 0.05 and error.kept > 0.9
    assert any("int8-activations was left out of the comparison" in note for note in report.notes)
    assert all(
        check.max_error <= check.limit / 2 * 1.01 for check in report.checks if check.level == "weights"
    )


@pytest.mark.parametrize("name, change", [(SCALES, "halve a scale"), (CODES, "another code")])
def test_numbers_that_are_no_rounding_of_the_checkpoint_fail(quantized, tmp_path, name, change):
    """The reference has the same wrong weight, so the graphs agree; but the weight is not the checkpoint's."""

    def damage(stored):
        if change == "halve a scale":
            stored[3, 0] *= 0.5
        else:
            stored[3, 0, 0] ^= np.uint8(0x88)  # the highest bit of two codes

    report = verify(change_tensor(quantized, tmp_path / "bad", name, damage), provider="cpu", layers=3)
    assert failed(report) == {("weights", "quantized weights")}
    [check] = [check for check in report.checks if check.verdict == "FAIL"]
    assert check.case == name.rpartition(".")[0]


@pytest.mark.long
def test_a_bf16_bundle_is_checked_through_a_float32_copy_with_the_same_codes(short, tmp_path):
    request = ExportRequest(short, output=tmp_path / "out", dtype="bf16", quantization=Quantization())
    report = verify(export(request).bundle.path, provider="cpu", layers=3, max_new_tokens=4)
    assert report.verdict == "PASS", failed(report)
    assert "a float32 copy" in report.notes[-1]
    assert report.quantization is not None


@pytest.mark.long
def test_activations_of_8_bits_are_left_out_and_said(short, tmp_path):
    folder = tmp_path / "bundle"
    request = ExportRequest(
        short,
        output=folder,
        dtype="fp32",
        quantization=Quantization(block_size=32),
        cpu_passes=get_args(CpuPass),
    )
    export(request)
    decoder = onnx.load(folder / "decoder.cpu.onnx", load_external_data=False)
    levels = [
        attribute.i
        for node in decoder.graph.node
        for attribute in node.attribute
        if attribute.name == "accuracy_level"
    ]
    assert set(levels) == {4} and len(levels) == 3 * 7 + 1
    report = verify(folder, provider="cpu", layers=3, max_new_tokens=2)
    assert report.verdict == "PASS", failed(report)
    assert any("int8-activations was left out of the comparison" in note for note in report.notes)
