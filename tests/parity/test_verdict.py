"""One gate, several metrics."""

import numpy as np

from asap_export.parity.verdict import Check, compare, equal, tolerance, worst


def verdict(found, expected, limit=1e-3):
    return compare("graphs", "case", "tensor", np.asarray(found), np.asarray(expected), limit).verdict


def test_errors_are_relative_to_the_largest_expected_value():
    check = compare("graphs", "case", "tensor", np.array([0.0, 100.05]), np.array([0.0, 100.0]), 1e-3)
    assert check.verdict == "PASS"
    assert np.isclose(check.max_error, 5e-4)
    assert np.isclose(check.mean_error, 2.5e-4)
    assert check.cosine > 0.999999
    assert verdict([0.0, 0.05], [0.0, 0.0]) == "FAIL"


def test_other_shapes_and_missing_numbers_fail():
    assert verdict([1.0], [1.0, 2.0]) == "FAIL"
    assert verdict([np.nan], [1.0]) == "FAIL"
    assert verdict([np.inf], [1.0]) == "FAIL"


def test_equal_infinities_of_a_mask_are_equal():
    assert verdict([-np.inf, 1.0], [-np.inf, 1.0]) == "PASS"
    assert verdict([0.0, 1.0], [-np.inf, 1.0]) == "FAIL"


def test_one_failure_is_a_failure():
    checks = [Check("graphs", "case", "tensor", name) for name in ("PASS", "PASS", "FAIL")]
    assert [worst(checks[:count]) for count in (0, 1, 2, 3)] == ["PASS", "PASS", "PASS", "FAIL"]


def test_masks_and_places_are_equal_or_not():
    mask = np.array([True, False, True])
    assert equal("cut", "case", "mask", mask, mask).verdict == "PASS"
    other = equal("cut", "case", "mask", ~mask, mask)
    assert (other.verdict, other.detail) == ("FAIL", "3 of 3 differ")
    assert equal("cut", "case", "mask", mask[:2], mask).verdict == "FAIL"


def test_tolerance_grows_with_coarser_types_and_deeper_models():
    assert tolerance("fp32", 8) < tolerance("fp16", 8) < tolerance("bf16", 8)
    assert tolerance("fp16", 32) == 2 * tolerance("fp16", 8)
