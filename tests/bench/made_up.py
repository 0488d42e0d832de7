"""Contenders and plans that no model stands behind."""

import sys
from dataclasses import asdict
from pathlib import Path

from asap_export.bench.records import Contender, Workload
from asap_export.bench.schedule import Plan
from asap_export.pruning.config import PruningConfig

WORKER = Path(__file__).with_name("fake_worker.py")
WORKLOAD = Workload(("a.png",), "What?", visual_tokens=100, text_tokens=20, keep=10)


def contender(
    name: str,
    source: str = "fine",
    *,
    kind="bundle",
    method="none",
    family="bundle fp32",
    dtype="fp32",
    computes="f32",
) -> Contender:
    pruning = asdict(PruningConfig(method=method))
    return Contender(name, kind, source, family, dtype, method, pruning, computes=computes)


def command(_: Contender) -> list[str]:
    return [sys.executable, str(WORKER)]


def plan(folder: Path, **changes) -> Plan:
    values = {"rounds": 2, "warmup": 1, "cache_lengths": (4, 8), "decode_steps": 3, "threads": 2} | changes
    return Plan(WORKLOAD, folder=folder, **values)
