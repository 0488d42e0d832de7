"""Medians, ratios and the arithmetic of FLOPs, on made-up samples."""

from dataclasses import replace

import pytest
from made_up import WORKLOAD, contender

from asap_export.bench.limits import rate_facts
from asap_export.bench.results import comparisons, contender_facts, curve_facts, flops_of
from asap_export.bench.schedule import Samples
from asap_export.bench.statistics import ratio, spread
from asap_export.pruning.flops import DecoderShape

SHAPE = DecoderShape(
    layers=4, hidden_size=8, intermediate_size=16, heads=2, kv_heads=1, head_dim=4, vocab_size=50
)
DENSE, PRUNED = contender("dense"), contender("pruned", method="asap")


def samples(contender, prefills, *, above=100, kv=1000, decode=(0.1, 0.3, 0.2)) -> Samples:
    rounds = [
        {
            "at": 0.0,
            "seconds": {"preprocess": 1.0, "vision": 2.0, "embed": 0.5, "prefill": prefill},
            "decode": list(decode),
            "cache_length": 30,
            "kv_bytes": kv,
            "kv_held_bytes": kv,
            "peak_above_weights": above,
            "peak": 5000,
        }
        for prefill in prefills
    ]
    return Samples(contender, 400, rounds, {16: [{"at": 1.0, "decode": [0.2, 0.4]}]})


def test_a_spread_is_five_numbers():
    assert spread([3.0, 1.0, 2.0, 5.0, 4.0]) == {
        "median": 3.0, "min": 1.0, "max": 5.0, "quartiles": [2.0, 4.0], "samples": 5,
    }  # fmt: skip
    assert spread([]) is None


def test_a_ratio_is_of_medians_and_its_range_of_rounds():
    assert ratio([10.0, 12.0, 11.0], [2.0, 3.0, 1.0]) == {"ratio": 5.5, "min": 4.0, "max": 11.0}
    assert ratio([], [1.0]) is None


def test_multiply_adds_are_those_of_the_tokens_each_layer_sees():
    def layer(tokens: int) -> int:
        return tokens * 8 * (2 * 8 + 2 * 4) + 2 * tokens**2 * 8 + 3 * tokens * 8 * 16

    head = 8 * 50
    assert flops_of(DENSE, WORKLOAD, SHAPE) == 4 * layer(120) + head
    assert flops_of(PRUNED, WORKLOAD, SHAPE) == 2 * layer(120) + 2 * layer(30) + head


def test_facts_of_a_contender():
    facts = contender_facts(samples(DENSE, [4.0, 6.0, 5.0]), WORKLOAD, SHAPE, {})
    assert facts["seconds"]["prefill"]["median"] == 5.0
    assert facts["seconds"]["first_token"]["median"] == 8.5
    assert facts["flops_per_second"] == 2 * flops_of(DENSE, WORKLOAD, SHAPE) / 5.0
    assert facts["decode_seconds"]["prompt"]["median"] == 0.2
    assert facts["decode_seconds"]["16"]["median"] == pytest.approx(0.3)
    assert facts["memory"]["prefill_above_weights"]["median"] == 100


def test_facts_of_one_that_failed_at_once_have_no_numbers_and_the_reason():
    facts = contender_facts(Samples(DENSE, failed="too little memory"), WORKLOAD, SHAPE, {})
    assert facts["failed"] == "too little memory"
    assert (
        facts["seconds"]["prefill"] is facts["flops_per_second"] is facts["decode_seconds"]["prompt"] is None
    )


def test_a_pruned_contender_is_compared_with_the_dense_one_of_its_family():
    peer = contender("peer", kind="transformers", family="transformers-sdpa")
    (row,) = comparisons(
        [
            samples(peer, [50.0, 50.0]),
            samples(PRUNED, [2.0, 2.0], above=25, kv=250),
            samples(DENSE, [7.0, 9.0]),
        ],
        WORKLOAD,
        SHAPE,
    )
    flops = flops_of(DENSE, WORKLOAD, SHAPE) / flops_of(PRUNED, WORKLOAD, SHAPE)
    assert (row["pruned"], row["dense"]) == ("pruned", "dense")
    assert row["speed_up"] == {"ratio": 4.0, "min": 3.5, "max": 4.5}
    assert row["flops_ratio"] == flops and row["of_flops_ratio"] == pytest.approx(4.0 / flops)
    assert row["memory_ratio"] == 0.25 and row["kv_ratio"] == 0.25


def test_without_a_baseline_or_without_samples_nothing_is_compared():
    alone = [samples(PRUNED, [2.0])]
    assert comparisons(alone, WORKLOAD, SHAPE) == []
    assert comparisons([*alone, Samples(DENSE, failed="gone")], WORKLOAD, SHAPE) == []


def test_a_curve_has_a_row_for_each_prefill():
    rows = curve_facts([(samples(PRUNED, [2.0]), [WORKLOAD]), (samples(DENSE, [4.0]), [WORKLOAD])], SHAPE)
    assert [(row["name"], row["keep"], row["prefill_seconds"]) for row in rows] == [
        ("pruned", 10, 2.0),
        ("dense", 100, 4.0),
    ]


def test_a_row_says_what_part_it_reaches_of_the_rate_of_what_it_computes_in():
    rates = rate_facts(
        [{"rates": {"f32": 1000.0, "bf16": None, "memory": speed}} for speed in (1e5, 3e5, 2e5)]
    )
    assert rates["memory"]["median"] == 2e5 and rates["bf16"] is None
    facts = contender_facts(samples(DENSE, [4.0]), WORKLOAD, SHAPE, rates)
    assert facts["of_rate"] == 2 * flops_of(DENSE, WORKLOAD, SHAPE) / 4.0 / 1000.0
    layer, head = 8 * (2 * 8 + 2 * 4) + 3 * 8 * 16, 8 * 50
    assert facts["step_bytes"] == 1000 + 4 * (4 * layer + head)  # the cache, and four bytes of each weight
    assert facts["of_bandwidth"] == pytest.approx(facts["step_bytes"] / 0.2 / 2e5)

    quantized = contender("quantized", dtype="bf16 int4", computes="bf16")
    facts = contender_facts(samples(quantized, [4.0]), WORKLOAD, SHAPE, rates)
    assert facts["step_bytes"] == 1000 + (4 * layer + head) // 2
    assert facts["of_rate"] is None  # no rate of bf16 on this machine


def test_one_that_makes_its_own_prompt_has_the_flops_of_that():
    own = samples(contender("own", kind="openvino-genai"), [4.0])
    own.prefill[0]["cache_length"] = 150
    facts = contender_facts(own, WORKLOAD, SHAPE, {})
    assert facts["multiply_adds"] == flops_of(DENSE, replace(WORKLOAD, visual_tokens=130), SHAPE)
