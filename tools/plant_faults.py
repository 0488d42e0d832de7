"""Plant wiring faults in the decoders of bundles, one at a time: does ``asap-export verify`` find each?

    python tools/plant_faults.py [BUNDLE ...] [--dtype fp16] [--form decoder.onnx] [--kind kept_length]
        [--every N] [--limit N] [--jobs 2] [--work out/faults] [--json FILE]

Without a bundle the demo checkpoint is exported, in fp32 and in fp16. A fault is found where the verdict is FAIL.
What is not found runs beside the sound decoder on the very inputs that verify gave it: where no output differs by
more than additions in another order would make it, the fault changes nothing and is none. Those are counted and
left out, as are graphs that ONNX Runtime cannot load, and those that run for ever. Exit status 1 if a fault was
missed, or if a sound bundle does not pass.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, get_args

import numpy as np
import onnx
import onnxruntime
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from asap_export.bundle.folder import read_manifest
from asap_export.errors import UserError
from asap_export.exporter import ExportRequest, export
from asap_export.parity import verify
from asap_export.runtime.onnxruntime_session import OnnxRuntimeSession

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "parity")]

from faults import FORMS, Planted, faults_of, plant  # noqa: E402

Result = Literal["found", "missed", "changes nothing", "cannot be loaded", "does not end"]

_SOUND = -1  # in place of a fault's number
_ROUNDING = 1e-6  # of an output's largest value, in float32
_LIMIT = 150  # seconds for a fault; some faults of a Loop run for ever
_PICTURE = ROOT / "examples" / "images" / "things.png"


@dataclass(frozen=True)
class Task:
    """A fault of a bundle, by its number."""

    bundle: Path
    number: int
    images: tuple[Path, ...]


@dataclass(frozen=True)
class Outcome:
    """What came of a fault; ``difference`` is the largest of an output, where it was missed, as a part of the
    largest number in that output."""

    dtype: str
    form: str
    kind: str
    name: str
    result: Result
    verdict: str
    seconds: float
    difference: float | None = None
    detail: str = ""


@cache
def _planted(bundle: Path) -> Planted:
    return faults_of(bundle)


def _try(task: Task) -> Outcome:
    """Plant a fault in a copy of the bundle, and verify that."""
    began = time.perf_counter()
    dtype = read_manifest(task.bundle).dtype
    if task.number == _SOUND:
        verdict = _verdict(task.bundle, task.images)
        result: Result = "found" if verdict == "PASS" else "missed"
        return Outcome(dtype, "", "", "sound", result, verdict, time.perf_counter() - began)
    fault = _planted(task.bundle).faults[task.number]
    outcome = Outcome(dtype, fault.form, fault.kind, fault.name, "found", "FAIL", 0.0)
    with tempfile.TemporaryDirectory(prefix="planted-", dir=task.bundle.parent) as name:
        folder = plant(fault, task.bundle, Path(name) / "bundle")
        try:
            OnnxRuntimeSession(folder / fault.form, fold_constants=False)
        except UserError as error:
            outcome = replace(outcome, result="cannot be loaded", verdict="", detail=str(error)[-200:])
        else:
            outcome = replace(outcome, verdict=_verdict(folder, task.images))
            if outcome.verdict != "FAIL":
                outcome = _missed(outcome, task.bundle / fault.form, folder / fault.form)
    return replace(outcome, seconds=time.perf_counter() - began)


def _verdict(bundle: Path, images: tuple[Path, ...]) -> str:
    _GIVEN.clear()
    try:
        return verify(bundle, provider="cpu", images=images, max_new_tokens=1).verdict
    except Exception as error:  # what a user would see: a traceback in place of a verdict
        return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"


def _missed(outcome: Outcome, sound: Path, planted: Path) -> Outcome:
    """Whether a fault that was not found shows in an output at all."""
    sessions = [OnnxRuntimeSession(path, fold_constants=False) for path in (sound, planted)]
    names = [value.name for value in onnx.load(sound, load_external_data=False).graph.output]
    largest = 0.0
    graph = onnx.load(sound, load_external_data=False).graph
    inputs = {value.name for value in graph.input} - {value.name for value in graph.initializer}
    given = [feeds for feeds in _GIVEN if feeds.keys() == inputs]
    for feeds in given:
        try:
            one, other = (session.run(feeds, on_host=names) for session in sessions)
        except Exception as error:
            return replace(outcome, result="missed", detail=f"cannot run: {str(error)[:150]}")
        largest = max([largest, *(_difference(one[name], other[name]) for name in names)])
    same = bool(given) and largest <= _ROUNDING
    return replace(outcome, result="changes nothing" if same else "missed", difference=largest)


def _difference(one: Any, other: Any) -> float:
    if one.shape != other.shape:
        return float("inf")
    if one.tobytes() == other.tobytes():
        return 0.0
    one, other = one.astype(np.float64), other.astype(np.float64)
    difference = np.abs(one - other).max() / (np.abs(one).max() or 1.0)
    return float(difference) if np.isfinite(difference) else float("inf")


_GIVEN: list[Mapping[str, Any]] = []  # what verify gave the decoder


def _watch() -> None:
    """In a worker: remember what decoders are given; PyTorch's model, which no fault is in, is loaded once."""
    onnxruntime.set_default_logger_severity(4)  # a fault that fails at run time is told in the table
    run, open_session = OnnxRuntimeSession.run, OnnxRuntimeSession.__init__

    def opened(self: Any, graph: Any, provider: str = "cpu", *rest: Any, **named: Any) -> None:
        open_session(
            self, graph, provider, *(rest or (1,)), **named
        )  # one thread: as many workers run as cores

    def watched(self: Any, inputs: Mapping[str, Any], on_host: Any = (), into: Any = None) -> Any:
        plain = not into and all(isinstance(value, np.ndarray | np.generic) for value in inputs.values())
        if plain and {"inputs_embeds", "kept_length"} <= inputs.keys():
            _GIVEN.append(dict(inputs))
        return run(self, inputs, on_host, into)

    OnnxRuntimeSession.run, OnnxRuntimeSession.__init__ = watched, opened  # type: ignore[method-assign]
    module = sys.modules["asap_export.parity.verify"]
    load = module.load_model
    models: dict[tuple[str, ...], Any] = {}

    def once(*key: Any) -> Any:
        if (name := tuple(map(repr, key[1:]))) not in models:
            models[name] = load(*key)
        return models[name]

    module.load_model = once  # type: ignore[attr-defined]


def _serve(connection: Connection) -> None:
    """A worker's life: tasks come in, outcomes go out."""
    _watch()
    with suppress(EOFError):  # of the parent's end
        while True:
            connection.send(_try(connection.recv()))


class _Worker:
    """A process that tries faults, started again where one does not end."""

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None

    def run(self, task: Task) -> Outcome:
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._connection, other = context.Pipe()
            self._process = context.Process(target=_serve, args=(other,), daemon=True)
            self._process.start()
        self._connection.send(task)
        if self._connection.poll(_LIMIT):
            outcome: Outcome = self._connection.recv()
            return outcome
        self._process.kill()
        self._process = None
        fault, dtype = _planted(task.bundle).faults[task.number], read_manifest(task.bundle).dtype
        return Outcome(dtype, fault.form, fault.kind, fault.name, "does not end", "", _LIMIT)


def _tried(tasks: list[Task], jobs: int) -> Iterator[Outcome]:
    """Outcomes as they come."""
    workers: SimpleQueue[_Worker] = SimpleQueue()
    for _ in range(jobs):
        workers.put(_Worker())

    def one(task: Task) -> Outcome:
        worker = workers.get()
        try:
            return worker.run(task)
        finally:
            workers.put(worker)

    with ThreadPoolExecutor(jobs) as pool:
        for done in as_completed([pool.submit(one, task) for task in tasks]):
            yield done.result()


def _small_pictures(folder: Path) -> tuple[Path, ...]:
    """Pictures of few visual tokens, one of more than the other: a run takes seconds, and what is cut is as great
    a part."""
    paths = []
    for width in (56, 84):
        paths.append(folder / f"small-{width}.png")
        Image.open(_PICTURE).convert("RGB").resize((width, 56)).save(paths[-1])
    return tuple(paths)


def _exported(work: Path, dtype: str) -> Path:
    bundle = work / f"demo-{dtype}.bundle"
    if not bundle.exists():
        export(ExportRequest(output=bundle, dtype=dtype))
    return bundle


def _table(outcomes: list[Outcome]) -> Table:
    table = Table("dtype", "form", "kind", *(f"{name}" for name in get_args(Result)))
    counts = Counter((o.dtype, o.form, o.kind, o.result) for o in outcomes)
    for group in dict.fromkeys((o.dtype, o.form, o.kind) for o in outcomes):
        table.add_row(*group, *(str(counts[*group, result] or "") for result in get_args(Result)))
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Plant wiring faults and see whether verify finds them.")
    parser.add_argument("bundles", nargs="*", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--dtype", choices=("fp32", "fp16"), action="append", help="of the demo, by default both"
    )
    parser.add_argument("--form", choices=FORMS)
    parser.add_argument("--kind", action="append", help="only faults of this kind, repeatable")
    parser.add_argument("--image", type=Path, action="append", default=[], help="in place of a small one")
    parser.add_argument("--every", type=int, default=1, help="only every so many faults")
    parser.add_argument("--limit", type=int, help="only so many faults of a bundle")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("out/faults"))
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> int:
    given, console = _arguments(), Console()
    given.work.mkdir(parents=True, exist_ok=True)
    images = tuple(given.image) or _small_pictures(given.work)
    bundles = given.bundles or [_exported(given.work, dtype) for dtype in given.dtype or ("fp32", "fp16")]
    tasks, equal = [], 0
    for bundle in bundles:
        planted = faults_of(bundle)
        equal += planted.equal
        chosen = [
            number
            for number, fault in enumerate(planted.faults)
            if given.form in (None, fault.form) and (given.kind is None or fault.kind in given.kind)
        ]
        numbers = [_SOUND, *chosen[:: given.every][: given.limit]]
        tasks += [Task(bundle.resolve(), number, images) for number in numbers]
    os.environ["OMP_NUM_THREADS"] = "1"
    running = track(_tried(tasks, given.jobs), "Verify", total=len(tasks), console=console)
    all_outcomes = []
    for outcome in running:
        all_outcomes.append(outcome)
        if given.json:
            facts = {"equal": equal, "outcomes": [asdict(outcome) for outcome in all_outcomes]}
            given.json.write_text(json.dumps(facts, indent=1) + "\n")
    outcomes = [outcome for outcome in all_outcomes if outcome.form]
    unsound = [outcome for outcome in all_outcomes if not outcome.form and outcome.result != "found"]
    outcomes.sort(key=lambda outcome: (outcome.dtype, outcome.form, outcome.kind, outcome.name))
    console.print(_table(outcomes))
    missed = [outcome for outcome in outcomes if outcome.result == "missed"]
    for outcome in missed:
        place = f"{outcome.dtype} {outcome.form}: {outcome.kind}: {outcome.name}"
        seen = f"outputs differ by {outcome.difference:.1e}" if outcome.difference is not None else ""
        print(f"not found: {place}: {outcome.verdict} {seen} {outcome.detail}")
    for outcome in (outcome for outcome in outcomes if outcome.result == "does not end"):
        print(f"does not end: {outcome.dtype} {outcome.form}: {outcome.kind}: {outcome.name}")
    for outcome in unsound:
        print(f"a sound bundle in {outcome.dtype} is {outcome.verdict}")
    results = Counter(outcome.result for outcome in outcomes)
    print(f"{equal} replacements hold the same values in every case: left out")
    print(f"{results['changes nothing']} changes alter no output by more than a rounding: left out")
    print(
        f"{results['cannot be loaded']} graphs cannot be loaded, {results['does not end']} do not end: left out"
    )
    print(f"{results['found']} of {results['found'] + len(missed)} faults found")
    return 1 if missed or unsound else 0


if __name__ == "__main__":
    sys.exit(main())
