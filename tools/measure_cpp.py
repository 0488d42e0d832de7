"""Measure the C++ runtime beside the Python one on a bundle: times to first token and per token, start-up, memory.

    python tools/measure_cpp.py BUNDLE [--provider openvino] [--rounds N] [--repeat N] [--build DIR] [--json FILE]

Processes take turns (Python, C++, Python, ...), so both meet the same machine; medians over all answers but each
process's first, and the ratio's range over the rounds. Start-up is what is left of a process's life when its
answers are subtracted. Overhead is the part of a prefill, and of a decode step, that C++ spends outside ONNX
Runtime's own calls; of OpenVINO's there is no such measure. ``make cpp`` builds what this needs.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from asap_export.bundle import tool_versions, utc_now

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "examples" / "images" / "things.png"
QUESTION = "What number is in the red box?"
NEW_TOKENS = 16

# The same work as ``asap-infer --repeat``, as a user of the Python package would write it.
PYTHON = """
import json, sys
from dataclasses import asdict
import asap_export
bundle, image, prompt, repeat, threads, tokens, provider = sys.argv[1:]
model = asap_export.load(bundle, provider, int(threads))
answers = [model.generate([image], prompt, max_new_tokens=int(tokens)) for _ in range(int(repeat))]
print(json.dumps([asdict(answer) for answer in answers]))
"""


Process = tuple[list[dict[str, Any]], float, int]  # answers, life in seconds, peak memory in bytes


@dataclass(frozen=True)
class Measured:
    """Medians in seconds, and the peak resident size in bytes."""

    first_token: float  # preprocess, vision, embed, prefill
    preprocess: float
    prefill: float
    per_token: float
    start_up: float
    peak_memory: int


def total(answer: dict[str, Any]) -> float:
    steps: list[float] = answer["timings"]["decode"]
    return first_token(answer) + sum(steps)


def first_token(answer: dict[str, Any]) -> float:
    seconds: dict[str, float] = answer["timings"]
    return seconds["preprocess"] + seconds["vision"] + seconds["embed"] + seconds["prefill"]


def run(command: list[str | Path]) -> Process:
    """Start a process, wait for its end, and measure it."""
    with tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        if status:
            sys.exit(f"{command[0]} failed")
        output.seek(0)
        return json.load(output), seconds, usage.ru_maxrss * 1024


def measured(processes: list[Process]) -> Measured:
    answers = [answer for found, _, _ in processes for answer in found[1:]]

    def median(name: str) -> float:
        seconds: list[float] = [answer["timings"][name] for answer in answers]
        return statistics.median(seconds)

    return Measured(
        statistics.median(map(first_token, answers)),
        median("preprocess"),
        median("prefill"),
        statistics.median(step for answer in answers for step in answer["timings"]["decode"]),
        statistics.median(seconds - sum(map(total, found)) for found, seconds, _ in processes),
        int(statistics.median(memory for _, _, memory in processes)),
    )


def ratios(python: list[Process], cpp: list[Process]) -> dict[str, list[float]]:
    """Python over C++ for each quantity, round by round."""
    rounds = [(measured([one]), measured([other])) for one, other in zip(python, cpp, strict=True)]
    return {
        field.name: [getattr(one, field.name) / getattr(other, field.name) for one, other in rounds]
        for field in fields(Measured)
    }


def table(python: Measured, cpp: Measured, by_round: dict[str, list[float]]) -> Table:
    shown = Table(box=None)
    for name in ("", "Python", "C++", "Python / C++", "over the rounds"):
        shown.add_column(name, justify="right" if name else "left")
    for name, field, scale, unit in (
        ("time to first token", "first_token", 1e3, ".1f} ms"),
        ("  of it preprocess", "preprocess", 1e3, ".1f} ms"),
        ("  of it prefill", "prefill", 1e3, ".1f} ms"),
        ("per token", "per_token", 1e3, ".1f} ms"),
        ("start-up", "start_up", 1e3, ".1f} ms"),
        ("peak memory", "peak_memory", 1e-6, ".0f} MB"),
    ):
        one, other, spread = getattr(python, field), getattr(cpp, field), by_round[field]
        seen = [("{:" + unit).format(value * scale) for value in (one, other)]
        shown.add_row(name, *seen, f"{one / other:.2f}", f"{min(spread):.2f} to {max(spread):.2f}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--provider", choices=["cpu", "openvino"], default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--repeat", type=int, default=20, help="answers of each process, the first not counted"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--build", type=Path, default=ROOT / "out" / "cpp" / "release")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.rounds < 1 or options.repeat < 2:
        parser.error("expected at least 1 round of 2 answers each")
    repeat, threads, tokens = str(options.repeat), str(options.threads), str(NEW_TOKENS)
    in_python = [sys.executable, "-c", PYTHON, options.bundle, IMAGE, QUESTION, repeat, threads, tokens]
    in_python.append(options.provider)
    in_cpp = [options.build / "asap-infer", options.bundle, "--image", IMAGE, "--prompt", QUESTION, "--json"]
    in_cpp += [
        "--repeat",
        repeat,
        "--threads",
        threads,
        "--max-new-tokens",
        tokens,
        "--provider",
        options.provider,
    ]
    python_runs, cpp_runs = [], []
    for _ in range(options.rounds):
        python_runs.append(run(in_python))
        cpp_runs.append(run(in_cpp))
    python, cpp, by_round = measured(python_runs), measured(cpp_runs), ratios(python_runs, cpp_runs)
    Console(width=100).print(table(python, cpp, by_round))
    overhead = None
    if options.provider == "cpu":
        program = options.build / "tests" / "asap-overhead"
        asked = [program, options.bundle, IMAGE, QUESTION, threads, repeat]
        overhead = json.loads(subprocess.check_output(asked))
        shares = f"{overhead['overhead']:.2%} of prefill, {overhead['step']:.2%} of a step"
        print(f"overhead outside ONNX Runtime's calls: {shares}")
    if options.json:
        facts = {
            "created": utc_now(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "tools": tool_versions(),
            "bundle": options.bundle.name,
            "provider": options.provider,
            "rounds": options.rounds,
            "answers": options.repeat,
            "python": asdict(python),
            "cpp": asdict(cpp),
            "python_over_cpp": by_round,
            "overhead": overhead,
        }
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
