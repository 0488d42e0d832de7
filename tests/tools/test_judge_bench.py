"""The promises, judged on made-up facts."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from judge_bench import judged  # noqa: E402


def contender(name, method="none", *, kind="bundle", dtype="fp32", prefill=1.0, decode=0.1):
    rounds = [{"seconds": {"prefill": prefill}, "decode": [decode]}]
    return {"name": name, "kind": kind, "dtype": dtype, "method": method, "samples": {"prefill": rounds}}


def profile(asap: float, seconds: float) -> dict:
    run = {"seconds": seconds, "asap": {"AsapScore": asap}, "shares": {"asap": asap / seconds}}
    return {"prefill": run, "decode": None}


FACTS = {
    "contenders": [
        contender("asap", "asap", prefill=2.0, decode=0.10),
        contender("dense", prefill=10.0),
        contender("fastv", "fastv"),
        contender("asap-int4", "asap", dtype="fp32 int4", decode=0.04),
        contender("transformers-sdpa-asap", "asap", kind="transformers", prefill=3.2, decode=0.17),
    ],
    "comparisons": [{"pruned": "asap", "dense": "dense", "of_flops_ratio": 0.95, "memory_ratio": 0.3}],
    "profiles": {"asap": profile(0.030, 2.0), "fastv": profile(0.022, 1.9)},
}


def verdicts(facts) -> dict[str, tuple]:
    return {row["target"]: (row["verdict"], row["value"]) for row in judged(facts)}


def test_each_target_has_its_number_and_verdict():
    found = verdicts(FACTS)
    expected = {
        "1": ("reached", 0.95),
        "2a": ("reached", 0.015),
        "2b": ("reached", 0.004),
        "3a": ("reached", 1.6),
        "3b": ("reached", 1.7),
        "3c": ("reached", 4.25),
        "4": ("reached", 0.3),
    }
    assert {target: verdict for target, (verdict, _) in found.items()} == {
        target: verdict for target, (verdict, _) in expected.items()
    }
    for target, (_, value) in expected.items():
        assert found[target][1] == pytest.approx(value)


def replace(facts: dict, number: int, contender: dict) -> None:
    facts["contenders"][number] = contender


@pytest.mark.parametrize(
    ("target", "change"),
    [
        ("1", lambda facts: facts["comparisons"][0].update(of_flops_ratio=0.919)),
        ("2a", lambda facts: facts["profiles"].update(asap=profile(0.041, 2.0))),
        ("2b", lambda facts: facts["profiles"].update(fastv=profile(0.019, 1.9))),
        ("3a", lambda facts: replace(facts, 0, contender("asap", "asap", prefill=2.2))),
        ("3b", lambda facts: replace(facts, 0, contender("asap", "asap", prefill=2.0, decode=0.12))),
        ("3c", lambda facts: replace(facts, 3, contender("int4", "asap", dtype="fp32 int4", decode=0.05))),
        ("4", lambda facts: facts["comparisons"][0].update(memory_ratio=0.34)),
    ],
)
def test_a_missed_target_says_so(target, change):
    facts = copy.deepcopy(FACTS)
    change(facts)
    assert verdicts(facts)[target][0] == "not reached"


@pytest.mark.parametrize(
    ("missing", "unmeasured"),
    [
        ("asap", {"1", "2a", "2b", "3a", "3b", "4"}),
        ("fastv", {"2b"}),
        ("asap-int4", {"3c"}),
        ("transformers-sdpa-asap", {"3a", "3b", "3c"}),
    ],
)
def test_what_took_no_part_leaves_its_targets_unmeasured_with_the_reason(missing, unmeasured):
    facts = copy.deepcopy(FACTS)
    facts["contenders"] = [contender for contender in facts["contenders"] if contender["name"] != missing]
    rows = judged(facts)
    assert {row["target"] for row in rows if row["verdict"] == "not measured"} == unmeasured
    assert all(row["reason"].startswith("needs ") for row in rows if row["value"] is None)


def test_without_profiles_the_shares_are_unmeasured():
    rows = judged(FACTS | {"profiles": None})
    assert {row["target"] for row in rows if row["verdict"] == "not measured"} == {"2a", "2b"}


def test_a_profile_that_failed_gives_its_reason():
    facts = FACTS | {"profiles": FACTS["profiles"] | {"asap": {"failed": "too little memory"}}}
    assert {row["reason"] for row in judged(facts) if row["target"].startswith("2")} == {"too little memory"}


def test_the_published_measurement_is_judged_as_the_documentation_says():
    tool, measured = ROOT / "tools" / "judge_bench.py", ROOT / "docs" / "measurements" / "bench.json"
    command = [sys.executable, tool, measured, "--markdown"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("### Targets") and printed in (ROOT / "docs" / "performance.md").read_text()
    facts = json.loads(measured.read_text())
    assert {row["target"] for row in judged(facts) if row["verdict"] == "not reached"} == {"2b", "3a"}
    refused = subprocess.run([sys.executable, tool, tool], capture_output=True, text=True)
    assert refused.returncode == 2 and "expected a measurement's JSON" in refused.stderr
