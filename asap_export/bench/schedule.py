"""The order of the work: A B C A B C ..., one process at work at any time, warm-up rounds thrown away."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from asap_export.bench.processes import Child, Failed, command_of
from asap_export.bench.records import Contender, Workload
from asap_export.progress import Progress, ProgressCallback, no_progress

__all__ = ["Plan", "Samples", "measure", "measure_curve", "profile_each"]

Command = Callable[[Contender], Sequence[str]]


@dataclass(frozen=True)
class Plan:
    """``rounds`` are counted, ``warmup`` rounds before them are not. ``decode_steps`` tokens of each round are
    timed at each of ``cache_lengths`` and behind the prompt. With ``fresh`` every round starts new processes,
    for contenders that do not fit into memory together."""

    workload: Workload
    rounds: int
    warmup: int
    cache_lengths: tuple[int, ...]
    decode_steps: int
    threads: int
    folder: Path
    fresh: bool = False


@dataclass
class Samples:
    """All that one contender's processes answered. ``prefill`` holds a sample for each counted round,
    ``decode`` by cache length the seconds of each round's tokens, each with "at", the second of the measurement
    when it began."""

    contender: Contender
    weights: int | None = None
    prefill: list[dict[str, Any]] = field(default_factory=list)
    decode: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    failed: str | None = None


def measure(
    contenders: Sequence[Contender],
    plan: Plan,
    progress: ProgressCallback = no_progress,
    command: Command = command_of,
) -> list[Samples]:
    """Run all contenders in turns. One that fails is out, with its reason; what it had answered before stays.

    The machine's reference, where it is among them, has its turn in every round of prefills."""
    run = _Run(contenders, plan, progress, command)
    with ExitStack() as children:
        if plan.fresh:
            run.with_new_processes()
        else:
            run.with_lasting_processes(children)
    return list(run.samples.values())


class _Run:
    def __init__(
        self, contenders: Sequence[Contender], plan: Plan, progress: ProgressCallback, command: Command
    ) -> None:
        self.plan, self.command = plan, command
        self.samples = {contender.name: Samples(contender) for contender in contenders}
        self._progress = progress
        self._began = monotonic()
        self._rounds = plan.warmup + plan.rounds
        self._done, self._turns = 0, len(contenders) * self._rounds * (1 + len(plan.cache_lengths))

    def with_lasting_processes(self, children: ExitStack) -> None:
        """Each contender's process lives until all is measured."""
        running: dict[str, Child] = {}
        for samples in self._left():
            self._tell(f"load {samples.contender.name}", 0)
            with _catching(samples):
                running[samples.contender.name] = children.enter_context(self._child(samples))
        for number in range(self._rounds):
            for samples in self._left():
                with _catching(samples):
                    self._prefill(running[samples.contender.name], samples, number)
        for length in self.plan.cache_lengths:
            for samples in self._with_caches():
                self._tell(f"cache of {length:,} tokens: {samples.contender.name}", 0)
                with _catching(samples):
                    running[samples.contender.name].ask({"job": "cache", "length": length})
            for number in range(self._rounds):
                for samples in self._with_caches():
                    with _catching(samples):
                        self._decode(running[samples.contender.name], samples, length, number)
            for samples in self._with_caches():  # only one length's caches take memory at a time
                with _catching(samples):
                    running[samples.contender.name].ask({"job": "drop"})

    def with_new_processes(self) -> None:
        """One process at a time; warm-up rounds happen in each of them."""
        for number in range(self.plan.warmup, self._rounds):
            for samples in self._left():
                with _catching(samples), self._child(samples) as child:
                    for warming in range(self.plan.warmup):
                        self._prefill(child, samples, warming)
                    self._prefill(child, samples, number)
                    for length in self.plan.cache_lengths if samples in self._with_caches() else ():
                        self._decode(child, samples, length, number)
                        child.ask({"job": "drop"})

    def _left(self) -> Iterator[Samples]:
        return (samples for samples in self.samples.values() if samples.failed is None)

    def _with_caches(self) -> Iterator[Samples]:
        return (samples for samples in self._left() if samples.contender.kind != "reference")

    def _child(self, samples: Samples) -> Child:
        return Child(samples.contender, self.plan.threads, self.plan.folder, self.command)

    def _prefill(self, child: Child, samples: Samples, number: int) -> None:
        self._tell(f"{self._round(number)}: {samples.contender.name}")
        samples.weights = child.weights
        job = {"job": "prefill", "workload": asdict(self.plan.workload), "decode_steps": self._steps}
        if samples.contender.kind == "reference":
            job = {"job": "rates"}
        self._keep(samples.prefill, child, job, number)

    def _decode(self, child: Child, samples: Samples, length: int, number: int) -> None:
        self._tell(f"{self._round(number)}, behind {length:,} tokens: {samples.contender.name}")
        job = {"job": "decode", "length": length, "steps": self.plan.decode_steps}
        self._keep(samples.decode.setdefault(length, []), child, job, number)

    def _keep(self, kept: list[dict[str, Any]], child: Child, job: dict[str, Any], number: int) -> None:
        at = monotonic() - self._began
        answer = child.ask(job)
        if number >= self.plan.warmup:
            kept.append({"at": round(at, 3), **answer})

    @property
    def _steps(self) -> int:
        """The first is not counted."""
        return self.plan.decode_steps + 1

    def _round(self, number: int) -> str:
        warm = number < self.plan.warmup
        return "warm-up" if warm else f"round {number - self.plan.warmup + 1} of {self.plan.rounds}"

    def _tell(self, detail: str, turns: int = 1) -> None:
        self._progress(Progress("Measure", min(1.0, self._done / max(1, self._turns)), detail))
        self._done += turns


@contextmanager
def _catching(samples: Samples) -> Iterator[None]:
    """A block whose Failed puts a contender out."""
    try:
        yield
    except Failed as failure:
        samples.failed = str(failure)


def measure_curve(
    contenders: Sequence[Contender],
    workloads: Sequence[Workload],
    plan: Plan,
    progress: ProgressCallback = no_progress,
    command: Command = command_of,
) -> list[tuple[Samples, list[Workload]]]:
    """One prefill of each workload, from small to large, by each contender in turns, in new processes.

    Returns with each contender's samples the workloads that they are of: where one fails, larger ones are not
    tried."""
    found = [(Samples(contender), list[Workload]()) for contender in contenders]
    began = monotonic()
    with ExitStack() as children:
        running = []
        for samples, done in found:
            with _catching(samples):
                child = children.enter_context(Child(samples.contender, plan.threads, plan.folder, command))
                running.append((child, samples, done))
        for number, workload in enumerate(workloads):
            for child, samples, done in running:
                if samples.failed is not None:
                    continue
                said = f"{workload.visual_tokens:,} visual tokens: {samples.contender.name}"
                progress(Progress("Measure curve", number / len(workloads), said))
                with _catching(samples):
                    at = monotonic() - began
                    job = {"job": "prefill", "workload": asdict(workload), "decode_steps": 0}
                    samples.prefill.append({"at": round(at, 3), **child.ask(job)})
                    done.append(workload)
    return found


def profile_each(
    contenders: Sequence[Contender],
    plan: Plan,
    progress: ProgressCallback = no_progress,
    command: Command = command_of,
) -> dict[str, dict[str, Any]]:
    """By name what each contender's profile says, one process after the other; {"failed": reason} where none
    does."""
    profiles: dict[str, dict[str, Any]] = {}
    for number, contender in enumerate(contenders):
        progress(Progress("Profile", number / len(contenders), contender.name))
        job = {"job": "profile", "workload": asdict(plan.workload), "decode_steps": plan.decode_steps}
        try:
            with Child(contender, plan.threads, plan.folder, command) as child:
                profiles[contender.name] = child.ask(job)["profile"]
        except Failed as failure:
            profiles[contender.name] = {"failed": str(failure)}
    return profiles
