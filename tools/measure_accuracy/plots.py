"""Plots as SVG, the same bytes for the same numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from measurements import SWEEPS, Sweep

Facts = dict[str, Any]
matplotlib.rcParams.update(
    {"svg.hashsalt": "asap-export", "font.size": 10, "axes.grid": True, "grid.alpha": 0.3}
)


def _save(figure: plt.Figure, file: Path) -> None:
    figure.savefig(file, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def _row(facts: Facts, method: str, budget: str | None) -> Facts:
    rows = [run for run in facts["runs"] if run["method"] == method and run["budget"] == budget]
    return rows[0]


def sweep_plot(facts: Facts, sweep: Sweep, file: Path) -> None:
    """Accuracy over the values of one choice, a line for each budget, dense and FastV beside."""
    figure, axes = plt.subplots(figsize=(5.2, 3.2))
    for number, budget in enumerate(sweep.budgets):
        color = f"C{number}"
        rows = [_row(facts, sweep.label(value), budget) for value in sweep.values]
        heights = [100 * row["accuracy"] for row in rows]
        low = [100 * (row["accuracy"] - row["accuracy_interval"][0]) for row in rows]
        high = [100 * (row["accuracy_interval"][1] - row["accuracy"]) for row in rows]
        places = [place + 0.06 * (number - (len(sweep.budgets) - 1) / 2) for place in range(len(rows))]
        line = "o-" if _ordered(sweep) else "o"
        axes.errorbar(places, heights, (low, high), fmt=line, color=color, capsize=3, label=f"ASAP, {budget}")
        fastv = 100 * _row(facts, "fastv", budget)["accuracy"]
        axes.axhline(fastv, color=color, linestyle=":", label=f"FastV, {budget}")
    axes.axhline(100 * _row(facts, "dense", None)["accuracy"], color="black", linewidth=1, label="dense")
    axes.set_xticks(range(len(sweep.values)), [value.replace(" ", "\n") for value in sweep.values])
    axes.set_xlabel(sweep.axis)
    axes.set_ylabel("accuracy, %")
    _legend_above(axes)
    _save(figure, file)


def _ordered(sweep: Sweep) -> bool:
    """Whether the values are numbers, so that a line between them means something."""
    return any(value[0].isdigit() for value in sweep.values)


def _legend_above(axes: plt.Axes) -> None:
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)


def budget_plot(facts: Facts, methods: Sequence[str], budgets: Sequence[str], file: Path) -> None:
    """Retention over the mean of visual tokens per layer, a line for each method."""
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    for number, method in enumerate(methods):
        rows = [_row(facts, method, budget) for budget in budgets]
        means = [100 * row["layer_average_ratio"] for row in rows]
        heights = [100 * row["retention"] for row in rows]
        low = [100 * (row["retention"] - row["retention_interval"][0]) for row in rows]
        high = [100 * (row["retention_interval"][1] - row["retention"]) for row in rows]
        axes.errorbar(means, heights, (low, high), fmt="o-", color=f"C{number}", capsize=3, label=method)
    axes.axhline(100, color="black", linewidth=1)
    kept = [100 * row["kept_visual_tokens"] / row["visual_tokens"] for row in rows]
    ticks = [f"{mean:.1f}\n({part:.1f})" for mean, part in zip(means, kept, strict=True)]
    axes.set_xticks(means, ticks)
    axes.set_xlabel("visual tokens, mean over all layers, % (behind the cut)")
    axes.set_ylabel("accuracy relative to dense, %")
    _legend_above(axes)
    _save(figure, file)


def sweep_plots(swept: Sequence[Facts], folder: Path) -> list[Path]:
    files = []
    for sweep, facts in zip(SWEEPS, swept, strict=True):
        file = folder / f"sweep-{sweep.name}.svg"
        sweep_plot(facts, sweep, file)
        files.append(file)
    return files
