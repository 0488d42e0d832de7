"""docs/accuracy.md from the numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measurements import SWEEPS, Sweep

from asap_export.evaluation.tables import markdown

__all__ = ["page"]

Facts = dict[str, Any]

HEAD = """\
# Accuracy under pruning

Written by `make accuracy`; the numbers behind it are in [measurements](measurements/), the words about them in
[method.md](method.md). Subject is the built-in demo checkpoint (its [card](../asap_export/demo/README.md)), so
this is a statement about a small model in a drawn world. What a budget costs your model on your data,
`asap-export eval` says ([evaluation.md](evaluation.md)).

Budgets are means over all layers as parts of the visual tokens, as the paper counts: 33.3 % and 22.2 % are its
"960" and "640" of 2,880, the other two are harder.
"""

SWEPT = """\
## The open choices, swept on the validation split

{questions:,} questions about {images:,} images; everything but the named choice stays at its default. Bars are
95 % Wilson intervals. In each plot the horizontal lines are dense (black) and FastV at the same budgets.
"""


def page(swept: dict[tuple[str, ...], Facts], test: Facts, plots: Sequence[Path], budgets: Path) -> str:
    parts = [
        HEAD,
        "## The test split, which no choice has seen\n",
        f"![Retention by budget](pictures/{budgets.name})\n",
    ]
    tables = markdown(test).split("\n", 1)[1].replace("\n## ", "\n### ")
    parts += [f"{test['questions']:,} questions about {test['images']:,} images.\n", tables.strip() + "\n"]
    some = next(iter(swept.values()))
    parts.append(SWEPT.format(questions=some["questions"], images=some["images"]))
    for choice, plot in zip(SWEEPS, plots, strict=True):
        parts += [
            f"### {choice.axis[:1].upper()}{choice.axis[1:]}\n",
            f"![{choice.axis}](pictures/{plot.name})\n",
        ]
        parts.append(_table(swept[choice.budgets], choice) + "\n")
    return "\n".join(parts)


def _table(facts: Facts, choice: Sweep) -> str:
    found = {(run["method"], run["budget"]): run for run in facts["runs"]}
    lines = [f"| {choice.parameter} | {' | '.join(choice.budgets)} |", "|---|" + "--:|" * len(choice.budgets)]
    for value in choice.values:
        cells = []
        for budget in choice.budgets:
            run = found[choice.label(value), budget]
            low, high = run["accuracy_interval"]
            cells.append(f"{run['accuracy']:.1%} [{low:.1%}, {high:.1%}]")
        lines.append(f"| {value} | {' | '.join(cells)} |")
    return "\n".join(lines)
