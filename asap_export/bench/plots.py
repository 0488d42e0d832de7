"""Plots of a run's facts as SVG: the same bytes for the same numbers."""

from pathlib import Path
from typing import Any

from asap_export.bench.records import PARTS
from asap_export.errors import UserError

__all__ = ["curve_plot", "first_token_plot", "require_plots"]

Facts = dict[str, Any]
_STYLE = {"svg.hashsalt": "asap-export", "font.size": 10, "axes.grid": True, "grid.alpha": 0.3}


def require_plots(file: Path) -> None:
    """Raise UserError where no plot can be drawn into ``file``."""
    if file.suffix != ".svg":
        raise UserError(f"expected a file name that ends in .svg for --plot, found {file}; change it")
    if not file.parent.is_dir():
        raise UserError(f"expected a folder for {file}, found none; make it or choose another place")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            'expected matplotlib for --plot, found none; pip install "asap-export[bench]", or leave --plot out'
        ) from error


def first_token_plot(facts: Facts, file: Path) -> None:
    """Time to first token of each contender, its parts end to end, with the range of the rounds."""
    plot = _pyplot()
    contenders = [contender for contender in facts["contenders"] if contender["samples"]["prefill"]]
    names = [contender["name"] for contender in contenders]
    figure, axes = plot.subplots(figsize=(7, 0.9 + 0.38 * len(contenders)))
    begins = [0.0] * len(contenders)
    for part in PARTS:
        widths = [contender["seconds"][part]["median"] for contender in contenders]
        axes.barh(names, widths, left=begins, height=0.62, label=part)
        begins = [begin + width for begin, width in zip(begins, widths, strict=True)]
    whole = [contender["seconds"]["first_token"] for contender in contenders]
    ranges = [
        [max(0.0, end - found["min"]) for end, found in zip(begins, whole, strict=True)],
        [max(0.0, found["max"] - end) for end, found in zip(begins, whole, strict=True)],
    ]
    axes.errorbar(begins, names, xerr=ranges, fmt="none", ecolor="black", capsize=2, linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel(f"seconds to the first token, {facts['workload']['visual_tokens']:,} visual tokens")
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(PARTS), frameon=False)
    _save(plot, figure, file)


def curve_plot(facts: Facts, file: Path) -> None:
    """Prefill time and memory above the weights over visual tokens, a line for each bundle."""
    plot = _pyplot()
    figure, panels = plot.subplots(1, 2, figsize=(9, 3.4))
    names = list(dict.fromkeys(row["name"] for row in facts["curve"]))
    for axes, value, unit, label in (
        (panels[0], "prefill_seconds", 1.0, "prefill, s"),
        (panels[1], "above_weights", 1e6, "peak memory above the weights, MB"),
    ):
        for name in names:
            rows = [row for row in facts["curve"] if row["name"] == name and row[value] is not None]
            tokens = [row["visual_tokens"] for row in rows]
            axes.plot(tokens, [row[value] / unit for row in rows], "o-", markersize=4, label=name)
        axes.set_xlabel("visual tokens")
        axes.set_ylabel(label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = sorted({row["visual_tokens"] for row in facts["curve"]})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=45)
        axes.minorticks_off()
    panels[0].legend(fontsize=8)
    _save(plot, figure, file)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update(_STYLE)
    from matplotlib import pyplot

    return pyplot


def _save(plot: Any, figure: Any, file: Path) -> None:
    partial = file.with_name(f".{file.name}.partial")
    figure.savefig(partial, format="svg", metadata={"Date": None}, bbox_inches="tight")
    plot.close(figure)
    partial.rename(file)
