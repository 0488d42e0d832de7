"""Give the installed commands hostile bundles, checkpoints, images, prompts and templates.

Each is to be refused in one line, in bounded time and memory.

    python tools/hostile [--only WORD] [--every N] [--jobs 2] [--json FILE]

Exit status 1 if a command hung, took what it should not, ended in more than one line or left something behind.
"""

import argparse
import io
import json
import logging
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from bundles import bundle_cases, request_cases  # noqa: E402
from case import Case, copied, replaced  # noqa: E402
from checkpoints import checkpoint_cases  # noqa: E402
from driving import Outcome, Result, carried_out, has_asap_infer  # noqa: E402
from installed_command import IMAGES  # noqa: E402
from templates import WHOLE, template_cases  # noqa: E402

from asap_export.cli.app import run  # noqa: E402


def every_case(work: Path) -> list[Case]:
    """The cases, and what they need made in ``work``."""
    from small_checkpoints import write_checkpoint

    sound = write_checkpoint(work / "sound", dtype="fp16")
    # Its imports are the campaign's, not each case's, and what is sound has to be taken.
    whole = copied(sound, work / "whole")
    replaced(whole / "chat_template.jinja", WHOLE.encode())
    bundles = []
    for model in (sound, whole):
        bundles.append(model.with_suffix(".bundle"))
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            made = run(["--model", str(model), "--output", str(bundles[-1]), "--dtype", "fp32", "--dense"])
        if made != 0:
            sys.exit("a sound checkpoint is refused")
    infer = has_asap_infer()
    return [
        *checkpoint_cases(sound),
        *template_cases(sound, bundles[1], IMAGES),
        *bundle_cases(bundles[0], infer),
        *request_cases(bundles[0], IMAGES, infer),
    ]


def table(outcomes: list[Outcome]) -> Table:
    """By kind: how many ended how, and the most time and memory that one took."""
    shown = Table("kind", "cases", "refused", "taken, harmless", "hung", "answered wrong", "other", "s", "MB")
    for kind in dict.fromkeys(outcome.case.kind for outcome in outcomes):
        of_kind = [outcome for outcome in outcomes if outcome.case.kind == kind]
        counts = Counter(outcome.result for outcome in of_kind)
        named = [counts.pop(result, 0) for result in ("refused", "taken", "hung", "answered wrong")]
        slowest, largest = max(o.seconds for o in of_kind), max(o.memory for o in of_kind)
        cells = (len(of_kind), *named, sum(counts.values()), f"{slowest:.1f}", largest // 10**6)
        shown.add_row(kind, *map(str, cells))
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="cases in whose kind or name this stands")
    parser.add_argument("--every", type=int, default=1, help="each N-th case alone")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write every outcome")
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        cases = [c for c in every_case(work) if given.only in f"{c.kind} {c.name}"][:: given.every]
        outcomes = carried_out_in(given.jobs, cases, work)
    for outcome in outcomes:
        if outcome.result not in ("refused", "taken"):
            print(
                f"{outcome.result}: {outcome.case.kind}, {outcome.case.name}\n  {outcome.said.strip()[-500:]}"
            )
    Console(width=120).print(table(outcomes))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps([facts(outcome) for outcome in outcomes], indent=1) + "\n")
    counts = Counter(outcome.result for outcome in outcomes)
    refused, wrong = counts["refused"], counts["answered wrong"]
    whole = len(outcomes) - counts["taken"]
    print(
        f"{refused} of {whole} refused in one line, {counts['hung']} hung, {wrong} answered wrong; beside them"
    )
    print(f"{counts['taken']} taken that transformers takes too, or that an export names")
    return int(refused != whole)


def carried_out_in(jobs: int, cases: list[Case], work: Path) -> list[Outcome]:
    """The outcomes of ``cases`` in their order, so many at a time.

    Each job is a fork too: to fork from a thread would hand on locks that another one holds.
    """
    with multiprocessing.get_context("fork").Pool(jobs, _numbered, (cases, work)) as pool:
        found = track(
            pool.imap(_outcome, range(len(cases))), "Running", len(cases), console=Console(stderr=True)
        )
        return [Outcome(case, *facts) for case, facts in zip(cases, found, strict=True)]


_given: tuple[list[Case], Path] = ([], Path())


def _numbered(cases: list[Case], work: Path) -> None:
    global _given
    _given = cases, work / f"job-{os.getpid()}"


def _outcome(number: int) -> tuple[Result, str, float, int]:
    """Without the case, whose function cannot be sent."""
    cases, work = _given
    found = carried_out(cases[number], work)
    return found.result, found.said, found.seconds, found.memory


def facts(outcome: Outcome) -> dict[str, object]:
    return {
        "kind": outcome.case.kind,
        "name": outcome.case.name,
        "result": outcome.result,
        "said": outcome.said.strip(),
        "seconds": round(outcome.seconds, 2),
        "memory": outcome.memory,
    }


if __name__ == "__main__":
    sys.exit(main())
