"""The order of the work: in turns, each contender in a process of its own, one of them at work at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from made_up import WORKLOAD, command, contender, plan

from asap_export.bench.processes import Child
from asap_export.bench.schedule import measure, measure_curve, profile_each

A, B, C = contender("A"), contender("B"), contender("C")


def log(folder: Path) -> Iterator[dict]:
    names = ("name", "process", "job", "began", "ended", "threads")
    for line in (folder / "log").read_text().splitlines():
        yield dict(zip(names, json.loads(line), strict=True))


def test_rounds_go_in_turns_and_warm_up_does_not_count(tmp_path):
    measured = measure([A, B, C], plan(tmp_path), command=command)
    prefills = [entry["name"] for entry in log(tmp_path) if entry["job"] == "prefill"]
    assert prefills == ["A", "B", "C"] * 3
    decodes = [entry["name"] for entry in log(tmp_path) if entry["job"] == "decode"]
    assert decodes == ["A", "B", "C"] * 6
    for samples in measured:
        # the first prefill of the made-up worker takes 2 s, every later one a second more
        assert [sample["seconds"]["prefill"] for sample in samples.prefill] == [3.0, 4.0]
        assert {length: len(found) for length, found in samples.decode.items()} == {4: 2, 8: 2}
        assert samples.weights == 2000 and samples.failed is None


@pytest.mark.parametrize("fresh", [False, True])
def test_the_machine_s_rates_have_their_turn_in_every_round(tmp_path, fresh):
    rates = contender("rates", kind="reference")
    measured = measure([rates, A], plan(tmp_path, warmup=0, fresh=fresh), command=command)
    jobs = [(entry["name"], entry["job"]) for entry in log(tmp_path) if entry["job"] in ("rates", "prefill")]
    assert jobs == [("rates", "rates"), ("A", "prefill")] * 2
    assert [sample["rates"]["f32"] for sample in measured[0].prefill] == [1e9, 1e9]
    assert {entry["name"] for entry in log(tmp_path) if entry["job"] == "decode"} == {"A"}


def test_every_contender_has_its_own_process_for_all_rounds_and_so_many_threads(tmp_path):
    measure([A, B], plan(tmp_path, threads=1), command=command)
    entries = list(log(tmp_path))
    processes = {
        entry["name"]: {e["process"] for e in entries if e["name"] == entry["name"]} for entry in entries
    }
    assert all(len(found) == 1 for found in processes.values())
    assert len(set.union(*processes.values()) - {os.getpid()}) == 2
    assert {entry["threads"] for entry in entries} == {"1"}


def test_a_worker_keeps_to_its_first_cores():
    program = "import os; from asap_export.bench.worker import pin; pin(1); print(*os.sched_getaffinity(0))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(min(os.sched_getaffinity(0)))]


def test_fresh_processes_warm_up_in_each_round(tmp_path):
    measured = measure([A, B], plan(tmp_path, fresh=True), command=command)
    prefills = [(entry["name"], entry["process"]) for entry in log(tmp_path) if entry["job"] == "prefill"]
    assert [name for name, _ in prefills] == ["A", "A", "B", "B"] * 2
    assert len({process for _, process in prefills}) == 4
    assert [sample["seconds"]["prefill"] for sample in measured[0].prefill] == [3.0, 3.0]
    assert {length: len(found) for length, found in measured[0].decode.items()} == {4: 2, 8: 2}


@pytest.mark.parametrize("fresh", [False, True])
def test_only_one_works_at_any_time(tmp_path, fresh):
    measure([A, B, C], plan(tmp_path, fresh=fresh), command=command)
    entries = sorted(log(tmp_path), key=lambda entry: entry["began"])
    assert all(earlier["ended"] <= later["began"] for earlier, later in pairwise(entries))


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("refuses", "expected an extra, found none; install it"),
        ("exits", "it ended with status 3: a library is missing"),
        ("crashes", "it crashed (SIGSEGV)"),  # when it has done the warm-up round
    ],
)
def test_one_that_fails_is_out_with_a_line_and_the_others_go_on(tmp_path, behaviour, reason):
    measured = measure([A, contender("bad", behaviour), C], plan(tmp_path), command=command)
    assert [samples.failed for samples in measured] == [None, reason, None]
    assert [len(samples.prefill) for samples in measured] == [2, 0, 2]


def test_a_program_that_is_not_there_is_a_line_too(tmp_path):
    (samples,) = measure([A], plan(tmp_path), command=lambda _: ["/no/such/python"])
    assert samples.failed == "expected to start /no/such/python, found: No such file or directory"


def test_a_curve_goes_up_in_turns_and_stops_where_a_contender_fails(tmp_path):
    crashing = contender("crashing", "crashes")
    found = measure_curve([A, crashing], [WORKLOAD, WORKLOAD, WORKLOAD], plan(tmp_path), command=command)
    assert [(samples.contender.name, len(done)) for samples, done in found] == [("A", 3), ("crashing", 1)]
    assert [entry["name"] for entry in log(tmp_path)] == ["A", "crashing", "A", "A"]


def test_a_profile_that_fails_has_its_reason(tmp_path):
    found = profile_each([A, contender("bad", "refuses")], plan(tmp_path), command=command)
    assert set(found["A"]) == {"prefill", "decode"}
    assert found["bad"] == {"failed": "expected an extra, found none; install it"}


def test_leaving_the_block_ends_the_process(tmp_path):
    with Child(A, 1, tmp_path, command) as child:
        process = child._process
    assert process.returncode == -signal.SIGKILL


def test_ctrl_c_ends_the_children(tmp_path):
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from made_up import command, contender\n"
        "from asap_export.bench.processes import Child\n"
        "with Child(contender('A'), 1, Path('.'), command) as child:\n"
        "    print(child._process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    arguments = [sys.executable, "-c", program, str(Path(__file__).parent)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGINT)
        parent.wait()
    for _ in range(1000):
        if not Path(f"/proc/{child}").exists():
            return
        time.sleep(0.01)
    pytest.fail("the child lives on")
