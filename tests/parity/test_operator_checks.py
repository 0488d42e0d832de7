"""Which differences of an operator's output count."""

import numpy as np

from asap_export.parity.operator_checks import as_compared
from asap_export.parity.verdict import compare

VISUAL = np.array([[False, True, True, True]])


def verdict(found: np.ndarray, expected: np.ndarray) -> str:
    pair = (as_compared("bias", values, VISUAL) for values in (found, expected))
    return compare("operators", "case", "AsapMask.bias", *pair, 1e-4).verdict


def bias(salience: list[float], lambda_max: float = 0.5) -> np.ndarray:
    """One row of Eq 4, and a blocked place."""
    weights = np.maximum(lambda_max * np.array(salience, np.float32), 1e-6)
    return np.append(np.log(weights), -np.inf).astype(np.float32)


def test_a_rounding_of_a_salience_near_zero_is_no_fault():
    """2e-5 of a range in which numbers up to 1 were added up: the next float32 of the sum is 6e-8 away."""
    assert verdict(bias([2e-5 + 1.2e-7, 0.4, 1.0]), bias([2e-5, 0.4, 1.0])) == "PASS"


def test_another_lambda_and_another_place_are():
    right = bias([0.2, 0.4, 1.0])
    assert verdict(bias([0.2, 0.4, 1.0], lambda_max=0.501), right) == "FAIL"
    assert verdict(right[[1, 0, 2, 3]], right) == "FAIL"
    assert verdict(np.append(right[:3], np.float32(0)), right) == "FAIL"
