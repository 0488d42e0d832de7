"""Muon, with all matrices of one shape orthogonalized together.

Steps are momentum made orthogonal by Newton-Schulz iterations (Jordan et al., 2024), scaled to the size of
AdamW's as Liu et al. (arXiv 2502.16982) do. torch.optim.Muon is the same rule one matrix at a time, which on a CPU
takes longer than the rest of a training step of so small a model.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["Muon"]

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.775, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """For matrices only; ``lr`` and ``weight_decay`` as for AdamW."""

    def __init__(self, matrices: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            by_shape.setdefault(matrix.shape, []).append(matrix)
        groups = [{"params": same} for same in by_shape.values()]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            matrices = [p for p in group["params"] if p.grad is not None]
            if not matrices:
                continue
            gradients = torch.stack([p.grad for p in matrices])
            momenta = torch.stack([self.state[p].get("momentum", torch.zeros_like(p)) for p in matrices])
            momenta.lerp_(gradients, 1 - MOMENTUM)
            steps = orthogonal(gradients.lerp(momenta, MOMENTUM))
            size = 0.2 * max(matrices[0].shape) ** 0.5 * group["lr"]
            for p, momentum, step in zip(matrices, momenta, steps, strict=True):
                self.state[p]["momentum"] = momentum
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-size)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearly orthogonal matrices that point where these do, to bfloat16's precision; [n, rows, columns]."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()
