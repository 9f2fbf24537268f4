"""Muon for the matrices, AdamW for the rest.

Muon: Keller Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. torch.optim.Muon
orthogonalises in bf16, which CPUs without AMX do not have; this one stays in the weights' type.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

FIVE = (3.4445, -4.7750, 2.0315)  # coefficients of the Newton-Schulz iteration


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly: singular values near 1."""
    a, b, c = FIVE
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal; Nesterov, decoupled weight decay."""

    def __init__(self, weights: Iterable[Tensor], lr: float, momentum: float, decay: float) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                moving = state.setdefault("moving", torch.zeros_like(weight))
                moving.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonal(weight.grad.lerp(moving, group["momentum"]))
                scale = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.mul_(1 - group["lr"] * group["decay"])
                weight.add_(update, alpha=-group["lr"] * scale)


def optimizers(net: nn.Module, muon_lr: float, adam_lr: float) -> list[torch.optim.Optimizer]:
    """One optimizer for the matrices of the blocks, one for embedding, norms and biases."""
    named = list(net.named_parameters())
    matrices = [p for name, p in named if p.dim() == 2 and "embedding" not in name]
    others = [p for name, p in named if p.dim() != 2 or "embedding" in name]
    return [
        Muon(matrices, lr=muon_lr, momentum=0.95, decay=0.01),
        torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
