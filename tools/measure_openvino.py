"""Time to first token and a step's time in OpenVINO and in ONNX Runtime, pruned and dense, in one interleaved run.

    python tools/measure_openvino.py PRUNED_BUNDLE DENSE_BUNDLE [--rounds 5] [--json FILE]

Both bundles of one checkpoint. Each contender has a process of its own, all are open at once, and they take turns
at the same picture and question: a warm-up, then the rounds. docs/performance.md has what it printed.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

CONTENDERS = [
    ("pruned", "openvino", "bf16"),
    ("pruned", "openvino", "f32"),
    ("pruned", "cpu", "auto"),
    ("dense", "openvino", "bf16"),
    ("dense", "openvino", "f32"),
]
SIZE = (640, 672)  # as many tiles as an image may have
WORDS, TOKENS = 50, 24


@dataclass
class Measured:
    """Medians in seconds; memory in bytes, of which ``mapped`` are files that the system may drop."""

    bundle: str
    provider: str
    precision: str
    visual_tokens: int
    kept: int
    vision: float
    prefill: float
    first_token: float
    step: float
    memory: int
    mapped: int
    rounds: int


def answer_on_demand(bundle: str, provider: str, precision: str, threads: int) -> None:
    """The child: one answer for each line that comes in."""
    import asap_export

    picture = np.random.default_rng(0).integers(0, 255, (*SIZE[::-1], 3), np.uint8)
    model = asap_export.load(bundle, provider, threads, precision)  # type: ignore[arg-type]
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        answer = model.generate(Image.fromarray(picture), "word " * WORDS, max_new_tokens=TOKENS)
        times = answer.timings
        status = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line
        )
        said = {
            "visual_tokens": answer.visual_tokens,
            "kept": answer.kept_visual_tokens,
            "vision": times.vision,
            "prefill": times.prefill,
            "first_token": times.first_token,
            "step": statistics.median(times.decode),
            "memory": int(status["VmRSS"].split()[0]) * 1024,
            "mapped": int(status["RssFile"].split()[0]) * 1024,
        }
        print(json.dumps(said), flush=True)


def measured(bundles: dict[str, Path], rounds: int, threads: int) -> list[Measured]:
    command = [sys.executable, __file__, "--child"]
    children = [
        subprocess.Popen(
            [*command, str(bundles[bundle]), provider, precision, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for bundle, provider, precision in CONTENDERS
    ]  # fmt: skip
    said: list[list[dict[str, float]]] = [[] for _ in children]
    for child in children:
        assert child.stdout is not None
        if not child.stdout.readline():
            sys.exit("expected every contender to open its bundle, found that one did not; see above")
    for number in range(rounds + 1):
        for child, answers in zip(children, said, strict=True):
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write("go\n")
            child.stdin.flush()
            answers.append(json.loads(child.stdout.readline()))
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    for child in children:
        child.communicate()
    return [_measured(each, answers[1:]) for each, answers in zip(CONTENDERS, said, strict=True)]


def _measured(contender: tuple[str, str, str], answers: list[dict[str, float]]) -> Measured:
    medians = {name: _median(answers, name) for name in answers[0]}
    return Measured(*contender, **medians, rounds=len(answers))  # type: ignore[arg-type]


def _median(answers: list[dict[str, float]], name: str) -> float:
    value = statistics.median(answer[name] for answer in answers)
    return int(value) if isinstance(answers[0][name], int) else value


def table(found: list[Measured]) -> Table:
    shown = Table(
        "bundle", "provider", "precision", "visual tokens", "kept", "first token, s", "vision", "prefill",
        "step, ms", "memory, MB", "of it files",
    )  # fmt: skip
    for each in found:
        shown.add_row(
            each.bundle, each.provider, each.precision, f"{each.visual_tokens:,}", f"{each.kept:,}",
            f"{each.first_token:.2f}", f"{each.vision:.2f}", f"{each.prefill:.2f}", f"{1e3 * each.step:.1f}",
            f"{each.memory / 1e6:,.0f}", f"{each.mapped / 1e6:,.0f}",
        )  # fmt: skip
    return shown


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        answer_on_demand(*sys.argv[2:5], int(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pruned", type=Path)
    parser.add_argument("dense", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)d")
    parser.add_argument("--threads", type=int, default=2, help="default %(default)d")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    given = parser.parse_args()
    found = measured({"pruned": given.pruned, "dense": given.dense}, given.rounds, given.threads)
    Console(width=140).print(table(found))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
