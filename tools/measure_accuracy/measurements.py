"""What is measured: each open choice by itself on the validation split, then the choice on the test split."""

from dataclasses import dataclass

__all__ = ["BUDGETS", "SWEEPS", "TESTED", "Sweep", "swept_together"]


@dataclass(frozen=True)
class Sweep:
    """One choice of the method: a parameter of ``asap``, its values, and the words of its plot's axis."""

    parameter: str
    values: tuple[str, ...]
    axis: str
    budgets: tuple[str, ...] = ("33.3%", "22.2%")

    def label(self, value: str) -> str:
        """The method of ``asap-export eval`` with this value."""
        if value == "no mask":
            return "asap-no-mask"
        if value == "no merging":
            return "asap-no-merge"
        return f"asap:{self.parameter}={value}"


SWEEPS = (
    Sweep("score", ("received", "salience", "text", "last"), "score that ranks visual tokens"),
    Sweep(
        "lambda_max", ("no mask", "0.01", "0.1", "0.25", "0.5", "0.75", "1"), "λ_max of the soft mask (Eq 4)"
    ),
    Sweep(
        "threshold",
        ("0.5", "0.7", "0.8", "0.9", "0.95", "0.99", "no merging"),
        "cosine above which tokens merge (Eq 6)",
    ),
    # three whole layers of twelve are more than 22.2 % already
    Sweep("prune_after", ("1", "2", "3"), "layers before the cut, K", budgets=("33.3%",)),
)  # fmt: skip

# Of the visual tokens, as the mean over all layers: the paper's "960" and "640" of 2,880, and two harder ones.
BUDGETS = ("33.3%", "22.2%", "19%", "17.5%")

TESTED = (
    "dense", "asap", "asap-received", "asap-salience", "asap-text", "asap-last",
    "asap-no-merge", "asap-no-mask", "fastv", "random",
)  # fmt: skip


def swept_together() -> dict[tuple[str, ...], str]:
    """The methods of one evaluation each, by its budgets."""
    together: dict[tuple[str, ...], list[str]] = {}
    for sweep in SWEEPS:
        together.setdefault(sweep.budgets, ["dense", "fastv", "random"]).extend(
            sweep.label(value) for value in sweep.values
        )
    return {budgets: ",".join(dict.fromkeys(methods)) for budgets, methods in together.items()}
