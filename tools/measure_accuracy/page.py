"""docs/accuracy.md from the numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measurements import SWEEPS, Sweep

from asap_export.report.evaluation import evaluation_markdown

__all__ = ["page"]

Facts = dict[str, Any]

HEAD = """\
# Accuracy under pruning

Written by `make accuracy`; the numbers behind it are in [measurements](measurements/), the words about them in
[method.md](method.md). Subject is the built-in demo checkpoint (its [card](../asap_export/demo/README.md)), so
this is a statement about a small model in a drawn world. What a budget costs your model on your data,
`asap-export eval` says ([evaluation.md](evaluation.md)).

Budgets are means over all layers as parts of the visual tokens, as the paper counts: 33.3 % and 22.2 % are its
"960" and "640" of 2,880, 19 % and 17.5 % are harder. `keep=16.6%` is the part that the paper's "640" leaves behind
the cut. In a model of 32 layers that is a mean of about 22 %; in this one of 12, two whole layers are 16.7 % by
themselves, so a mean of 22.2 % leaves 6.6 % behind the cut.

`asap` is what an export does by default, and `asap-last` names the same settings. Every other method differs from
`asap` in what its name says ([evaluation.md](evaluation.md#what-is-compared)).
"""

SWEPT = """\
## The open choices, swept on the validation split

{questions:,} questions about {images:,} images; everything but the named choice stays at its default. Bars are
95 % Wilson intervals. In each plot the horizontal lines are dense (black) and FastV at the same budgets.
"""


def page(swept: Sequence[Facts], test: Facts, plots: Sequence[Path], budgets: Path) -> str:
    parts = [
        HEAD,
        "## The test split, which no choice has seen\n",
        f"![Retention by budget](pictures/{budgets.name})\n",
    ]
    tables = evaluation_markdown(test).split("\n", 1)[1].replace("\n## ", "\n### ")
    parts += [f"{test['questions']:,} questions about {test['images']:,} images.\n", tables.strip() + "\n"]
    parts.append(SWEPT.format(questions=swept[0]["questions"], images=swept[0]["images"]))
    for choice, facts, plot in zip(SWEEPS, swept, plots, strict=True):
        parts += [
            f"### {_title(choice.axis)}\n",
            f"![{choice.axis}](pictures/{plot.name})\n",
        ]
        parts.append(_table(facts, choice) + "\n")
    return "\n".join(parts)


def _title(axis: str) -> str:
    """A capital at the beginning, but for symbols: λ is not Λ."""
    return axis[0].upper() + axis[1:] if axis.isascii() else axis


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
