"""What is measured: each open choice by itself on the validation split, then the choice on the test split."""

from dataclasses import dataclass

__all__ = ["BUDGETS", "SWEEPS", "TESTED", "Sweep"]


@dataclass(frozen=True)
class Sweep:
    """One choice of the method: a parameter of ``asap``, its values, and the words of its plot's axis.

    ``given`` is set beside it, where that is not the default.
    """

    parameter: str
    values: tuple[str, ...]
    axis: str
    given: str = ""
    budgets: tuple[str, ...] = ("33.3%", "22.2%")

    @property
    def name(self) -> str:
        """Its part of file names."""
        return "-".join([self.parameter.replace("_", "-"), *self.given.split("=")[1:]])

    def label(self, value: str) -> str:
        """The method of ``asap-export eval`` with this value."""
        setting = {"no mask": "mask=no", "no merging": "merge=no"}.get(value, f"{self.parameter}={value}")
        return ":".join(part for part in ("asap", self.given, setting) if part)

    @property
    def methods(self) -> tuple[str, ...]:
        return ("dense", *(self.label(value) for value in self.values), "fastv", "random")


_MASKS = ("no mask", "0.01", "0.1", "0.25", "0.5", "0.75", "1")
SWEEPS = (
    Sweep("score", ("received", "salience", "text", "last"), "score that ranks visual tokens"),
    Sweep(
        "threshold",
        ("0.5", "0.7", "0.8", "0.85", "0.9", "0.95", "0.99", "no merging"),
        "cosine above which tokens merge (Eq 6)",
    ),
    Sweep("lambda_max", _MASKS, "λ_max of the soft mask (Eq 4)"),
    Sweep("lambda_max", _MASKS, "λ_max of the soft mask (Eq 4), score received", given="score=received"),
    # three whole layers of twelve are more than 22.2 % already
    Sweep("prune_after", ("1", "2", "3"), "layers before the cut, K", budgets=("33.3%", "keep=16.6%")),
)

# As means over all layers the paper's "960" and "640" of 2,880 and two harder ones; and the part that its "640"
# keeps behind the cut, 478 of 2,880. The same mean leaves less there in a model of 12 layers than in one of 32.
BUDGETS = ("33.3%", "keep=16.6%", "22.2%", "19%", "17.5%")

TESTED = (
    "dense", "asap", "asap:prune_after=1", "asap-received", "asap-salience", "asap-text", "asap-last",
    "asap-no-merge", "asap-no-mask", "fastv", "random",
)  # fmt: skip
