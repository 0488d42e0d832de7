"""A decoder that tells of its cut computes what it computed before, to the last bit."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from test_cpu_decoder import CASES, feeds_of, opened

from asap_export.graph.lay_open import lay_open


@pytest.mark.parametrize("file", ["decoder.onnx", "decoder.cpu.onnx"])
def test_all_outputs_stay_as_they_were(pruned_bundle, file):
    plain = onnx.load(pruned_bundle / file, load_external_data=False)
    model = ir.from_proto(plain)
    places = lay_open(model)
    told = ir.to_proto(model)
    before, after = opened(plain, pruned_bundle), opened(told, pruned_bundle)
    for case in ("a prompt", "a later turn with an image", "two padded rows", "a decode step"):
        feeds = feeds_of(plain, **CASES[case])
        expected, found = before(feeds), after(feeds)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=f"{case}: {name}")
        if places.cuts and not found[places.cuts]:
            assert case == "a decode step"
            continue
        nodes = {node.kind: node.values(feeds | found) for node in places.pruning}
        np.testing.assert_array_equal(nodes["AsapMerge"]["kept_index"], found["kept_index"])
        np.testing.assert_array_equal(nodes["AsapMerge"]["index"], nodes["AsapTopK"]["index"])
        assert nodes["AsapTopK"]["kept_length"] == feeds["kept_length"]


def test_what_is_told(pruned_bundle, dense_bundle):
    def told(folder, file):
        model = ir.load(folder / file)
        return lay_open(model)

    canonical, for_cpu = told(pruned_bundle, "decoder.onnx"), told(pruned_bundle, "decoder.cpu.onnx")
    assert [node.kind for node in canonical.pruning] == ["AsapMask", "AsapScore", "AsapTopK", "AsapMerge"]
    assert [node.kind for node in for_cpu.pruning] == [
        "SoftMaskedAttention", "LastRowBias", "LastRowScore", "AsapTopK", "AsapMerge"
    ]  # fmt: skip
    for form in (canonical, for_cpu, told(dense_bundle, "decoder.onnx")):
        assert [node.layer for node in form.attention] == list(range(8))
    assert canonical.cuts is None and for_cpu.cuts
    assert not told(dense_bundle, "decoder.cpu.onnx").pruning
