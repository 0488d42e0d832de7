"""What a list of methods means, and what is refused."""

import pytest

from asap_export.errors import UserError
from asap_export.evaluation.methods import METHODS, parse_methods
from asap_export.pruning.config import PruningConfig


def test_names_stand_for_configurations():
    assert [method.pruning for method in parse_methods("dense, asap-text,fastv")] == [
        PruningConfig(method="none"),
        PruningConfig(score="text"),
        PruningConfig(method="fastv"),
    ]
    assert parse_methods(",".join(METHODS))[0].label == "dense"


def test_parameters_follow_a_name_behind_colons():
    [method] = parse_methods("asap:score=text:threshold=0.8:prune_after=3:merge=yes:mask=no")
    assert method.pruning == PruningConfig(score="text", threshold=0.8, prune_after=3, bidirectional=False)
    [method] = parse_methods("random:seed=7")
    assert method.pruning == PruningConfig(method="random", seed=7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected methods among dense, asap, .*, found none"),
        ("asap,pyramid", "expected methods among dense, asap, .*, found 'pyramid'"),
        ("asap,asap", "found asap twice"),
        ("asap:lambda=1", "expected of asap a parameter among score, lambda_max, .*, found 'lambda'"),
        ("fastv:threshold=1", "expected of fastv a parameter among prune_after, found 'threshold'"),
        ("dense:merge=no", "expected of dense a parameter among none, found 'merge'"),
        ("asap:merge=maybe", "expected yes or no for merge, found 'maybe'"),
        ("asap:score=first", "expected one of received, salience, text, last for score, found 'first'"),
        ("asap:lambda_max=x", "expected a number for lambda_max, found 'x'"),
        ("asap:lambda_max=2", r"expected lambda-max in \(0, 1\], found 2"),
        ("asap-no-mask:lambda_max=1", "expected no lambda_max with mask=no"),
        ("asap:merge=no:threshold=0.5", "expected no threshold with merge=no"),
    ],
)
def test_a_method_that_does_not_exist_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        parse_methods(text)
