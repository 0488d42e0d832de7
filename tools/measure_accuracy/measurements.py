"""What is measured: each open choice by itself on the validation split, then the choice on the test split."""

from dataclasses import dataclass

__all__ = ["BUDGETS", "SWEEPS", "TESTED", "Sweep", "sweep_methods"]


@dataclass(frozen=True)
class Sweep:
    """One choice of the method: a parameter of ``asap``, its values, and the words of its plot's axis."""

    parameter: str
    values: tuple[str, ...]
    axis: str

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
    Sweep("prune_after", ("1", "2", "3"), "layers before the cut, K"),
)  # fmt: skip

# Of the visual tokens, as the mean over all layers: the paper's "960" and "640" of 2,880, and two harder ones.
BUDGETS = ("33.3%", "22.2%", "19%", "17.5%")

TESTED = (
    "dense", "asap", "asap-received", "asap-salience", "asap-text", "asap-last",
    "asap-no-merge", "asap-no-mask", "fastv", "random",
)  # fmt: skip


def sweep_methods() -> str:
    labels = [sweep.label(value) for sweep in SWEEPS for value in sweep.values]
    return ",".join(["dense", *dict.fromkeys(labels), "fastv", "random"])
