"""What an evaluation runs: methods, each under every budget, in every runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from asap_export.evaluation.budgets import NamedBudget
from asap_export.evaluation.methods import NamedMethod
from asap_export.pruning.config import PruningConfig

__all__ = ["Run", "Runtime", "runs_of"]

Runtime = Literal["torch", "ort"]


@dataclass(frozen=True)
class Run:
    """One row of the results; without a budget nothing is pruned."""

    method: NamedMethod
    budget: NamedBudget | None
    runtime: Runtime

    @property
    def label(self) -> str:
        """The same in both runtimes: "dense", "asap 22.2%"."""
        return self.method.label if self.budget is None else f"{self.method.label} {self.budget.label}"

    @property
    def pruning(self) -> PruningConfig:
        return self.method.pruning

    def keep_for(self, visual_tokens: int, layers: int) -> int:
        """Visual tokens after the cut."""
        if self.budget is None:
            return visual_tokens
        return self.budget.keep_for(visual_tokens, layers, self.pruning.prune_after)


def runs_of(
    methods: Sequence[NamedMethod], budgets: Sequence[NamedBudget], runtimes: Sequence[Runtime]
) -> tuple[Run, ...]:
    """By budget, dense first. Where no graph can hold a method, PyTorch runs it, whatever was asked for."""
    runs = []
    for runtime in runtimes:
        for budget in (None, *budgets):
            for method in methods:
                if method.pruning.prunes == (budget is None):
                    continue
                runs.append(Run(method, budget, "torch" if method.pruning.method == "random" else runtime))
    return tuple(dict.fromkeys(runs))
