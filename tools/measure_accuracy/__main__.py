"""Measure what pruning costs the demo checkpoint, and where its open choices do best; write docs/accuracy.md.

    python tools/measure_accuracy [FOLDER] [--sweep-limit N] [--test-limit N]       (default: out/accuracy)

The sweep sees the validation split only, the test split only what was chosen. An interrupted run goes on where it
was.
"""

import argparse
import json
from pathlib import Path

from measurements import BUDGETS, SWEEPS, TESTED
from page import page
from plots import budget_plot, sweep_plots
from rich.console import Console
from rich.progress import Progress as Bar

from asap_export.evaluation import EvaluationRequest, evaluate
from asap_export.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
DRAWN = ("asap", "asap-received", "asap-no-merge", "fastv", "random")


def measured(request: EvaluationRequest, bar: Bar, name: str) -> dict[str, object]:
    task = bar.add_task(name, total=1.0)

    def show(progress: Progress) -> None:
        bar.update(task, completed=progress.fraction or 0.0, description=f"{name}: {progress.detail}")

    facts = evaluate(request, show).facts
    bar.update(task, completed=1.0)
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "out" / "accuracy")
    parser.add_argument("--model", type=Path, help="a checkpoint; the built-in demo without it")
    parser.add_argument("--sweep-limit", type=int, default=1600, help="questions of the validation split")
    parser.add_argument("--test-limit", type=int, default=4000, help="questions of the test split")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    with Bar(console=Console(stderr=True)) as bar:
        swept = [
            measured(
                EvaluationRequest(
                    subject=options.model,
                    split="validation",
                    limit=options.sweep_limit,
                    methods=",".join(sweep.methods),
                    budgets=",".join(sweep.budgets),
                    output=options.folder / f"sweep-{sweep.name}",
                ),
                bar,
                f"sweep {sweep.name}",
            )
            for sweep in SWEEPS
        ]
        test = measured(
            EvaluationRequest(
                subject=options.model,
                split="test",
                limit=options.test_limit,
                methods=",".join(TESTED),
                budgets=",".join(BUDGETS),
                output=options.folder / "test",
            ),
            bar,
            "test",
        )
    pictures = options.docs / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    plots = sweep_plots(swept, pictures)
    budgets = pictures / "accuracy-budgets.svg"
    budget_plot(test, DRAWN, BUDGETS, budgets)
    (options.docs / "accuracy.md").write_text(page(swept, test, plots, budgets), encoding="utf-8")
    for name, facts in {"sweep": swept, "test": test}.items():
        file = options.docs / "measurements" / f"demo-accuracy-{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print((options.docs / "accuracy.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
