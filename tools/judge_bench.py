"""What the project promises of its speed, and whether a measurement of ``asap-export bench`` keeps it.

python tools/judge_bench.py docs/measurements/bench.json [--markdown]
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asap_export.bench.results import round_medians
from asap_export.cli.tables import print_tables
from asap_export.report.sheets import Sheet, sheet_markdown, sheet_table

Facts = dict[str, Any]

OF_FLOPS, ASAP_SHARE, OVER_FASTV, PREFILL, DECODE, DECODE_INT4 = 0.92, 0.02, 0.005, 1.5, 1.5, 4.0
MEMORY = 1 / 3
_PEER = "transformers-sdpa-asap"


@dataclass(frozen=True)
class _Target:
    """``value`` of a run's facts; a string where it has none, which says what is missing."""

    number: str
    promise: str
    bound: float
    at_least: bool
    value: Callable[[Facts], float | str]


def judged(facts: Facts) -> list[Facts]:
    """Each target with its "value" and a "verdict": reached, not reached, or not measured with the reason."""
    rows = []
    for target in TARGETS:
        value = target.value(facts)
        if isinstance(value, str):
            verdict, reason, number = "not measured", value, None
        else:
            kept = value >= target.bound if target.at_least else value <= target.bound
            verdict, reason, number = "reached" if kept else "not reached", None, value
        rows.append(
            {
                "target": target.number,
                "promise": target.promise,
                "bound": target.bound,
                "at_least": target.at_least,
                "value": number,
                "verdict": verdict,
                "reason": reason,
            }
        )
    return rows


def _bundle(facts: Facts, dtype: str, method: str) -> Facts | None:
    """The first bundle of its kind that was measured."""
    found = (
        contender
        for contender in facts["contenders"]
        if (contender["kind"], contender["dtype"], contender["method"]) == ("bundle", dtype, method)
        and contender["samples"]["prefill"]
    )
    return next(found, None)


def _named(facts: Facts, name: str) -> Facts | None:
    found = (contender for contender in facts["contenders"] if contender["name"] == name)
    return next((contender for contender in found if contender["samples"]["prefill"]), None)


def _comparison(facts: Facts, part: str) -> float | str:
    asap = _bundle(facts, "fp32", "asap")
    if asap is None:
        return "needs a pruned fp32 bundle"
    rows = [row for row in facts["comparisons"] if row["pruned"] == asap["name"]]
    if not rows or rows[0][part] is None:
        return "needs the dense bundle of the same checkpoint and dtype"
    return float(rows[0][part])


def _asap_share(facts: Facts, method: str) -> float | str:
    contender = _bundle(facts, "fp32", method)
    profile = (facts["profiles"] or {}).get(contender["name"]) if contender else None
    if profile is None:
        return f"needs --profile and an fp32 bundle of method {method}"
    return profile["failed"] if "failed" in profile else float(profile["prefill"]["shares"]["asap"])


def _over_fastv(facts: Facts) -> float | str:
    asap, fastv = _asap_share(facts, "asap"), _asap_share(facts, "fastv")
    if isinstance(asap, str) or isinstance(fastv, str):
        return next(share for share in (asap, fastv) if isinstance(share, str))
    names = [
        contender["name"] for method in ("asap", "fastv") if (contender := _bundle(facts, "fp32", method))
    ]
    # FastV's prefill is another one, so seconds are compared, and divided by ASAP's.
    ours, theirs = (facts["profiles"][name]["prefill"] for name in names)
    return float((sum(ours["asap"].values()) - sum(theirs["asap"].values())) / ours["seconds"])


def _over_peer(dtype: str, seconds: Callable[[Facts], list[float]]) -> Callable[[Facts], float | str]:
    def value(facts: Facts) -> float | str:
        own, peer = _bundle(facts, dtype, "asap"), _named(facts, _PEER)
        if own is None or peer is None:
            return f"needs a pruned bundle of {dtype} and the peer {_PEER}"
        ours, theirs = seconds(own), seconds(peer)
        return float(np.median(theirs) / np.median(ours)) if ours and theirs else "needs --decode-steps"

    return value


def _prefill(contender: Facts) -> list[float]:
    return [sample["seconds"]["prefill"] for sample in contender["samples"]["prefill"]]


def _decode(contender: Facts) -> list[float]:
    return round_medians(contender["samples"]["prefill"])


TARGETS = (
    _Target("1", "pruned over dense prefill, of the ratio of FLOPs", OF_FLOPS, True,
            lambda facts: _comparison(facts, "of_flops_ratio")),
    _Target("2a", "ASAP's nodes in the pruned prefill", ASAP_SHARE, False,
            lambda facts: _asap_share(facts, "asap")),
    _Target("2b", "ASAP's nodes beyond FastV's, of the pruned prefill", OVER_FASTV, False, _over_fastv),
    _Target("3a", f"prefill, times as fast as {_PEER}", PREFILL, True, _over_peer("fp32", _prefill)),
    _Target("3b", f"decode in fp32 behind the prompt, times as fast as {_PEER}", DECODE, True,
            _over_peer("fp32", _decode)),
    _Target("3c", f"decode in int4 behind the prompt, times as fast as {_PEER}", DECODE_INT4, True,
            _over_peer("fp32 int4", _decode)),
    _Target("4", "peak memory of the pruned prefill above the weights, of the dense one's", MEMORY, False,
            lambda facts: _comparison(facts, "memory_ratio")),
)  # fmt: skip


def sheet(facts: Facts) -> Sheet:
    """A row for each target."""
    rows = []
    for row in judged(facts):
        sign = "≥" if row["at_least"] else "≤"
        share = row["target"].startswith("2")
        bound, value = (
            "–" if number is None else f"{number:.2%}" if share else f"{number:.3g}"
            for number in (row["bound"], row["value"])
        )
        verdict = row["verdict"] + (f": {row['reason']}" if row["reason"] else "")
        rows.append((f"{row['target']} {row['promise']}", f"{sign} {bound}", value, verdict))
    return Sheet("Targets", ("target", "wanted", "measured", "verdict"), rows, ["verdict"])


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("measurement", type=Path, metavar="FILE", help="what bench --output wrote")
    arguments.add_argument("--markdown", action="store_true")
    given = arguments.parse_args()
    try:
        targets = sheet(json.loads(given.measurement.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        arguments.error(
            f"expected a measurement's JSON in {given.measurement}, found: {error!r}; give another file"
        )
    if given.markdown:
        print(sheet_markdown(targets, 3))
    else:
        print_tables(sheet_table(targets))
    return 0


if __name__ == "__main__":
    sys.exit(main())
