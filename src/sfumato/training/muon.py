"""Muon: step hidden weight matrices along their orthogonalised momentum.

A convolution is the matrix out x (in k k). With momentum M the update is

    O = NewtonSchulz(M) ~ U V^T of M's SVD,        W <- W (1 - lr wd) - lr sqrt(max(1, rows / columns)) O

where five quintic iterations X <- a X + (b A + c A^2) X, A = X X^T, push every singular value towards 1. torch ships a
Muon for two-dimensional parameters only; the weights of a U-Net are convolutions.

References:
    Jordan et al. Muon: An optimizer for hidden layers in neural networks. 2024. https://kellerjordan.github.io/posts/muon/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Muon(Optimizer):
    """Step hidden matrices along their orthogonalised Nesterov momentum (see the module docstring).

    Arguments:
        params: Weights of two or more dimensions; flattened to (out, everything else).
        lr: Step size; the update's singular values are near 1.
        momentum: Of the exponential gradient average, in [0, 1).
        weight_decay: Decoupled decay per unit of lr.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                average = state["momentum"]
                average.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(average, group["momentum"])
                matrix = update.reshape(len(p), -1)
                matrix = orthogonalise(matrix) * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                if group["weight_decay"]:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(matrix.reshape(p.shape).to(p.dtype), alpha=-group["lr"])


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return an approximation of U V^T of the matrix's SVD by Newton-Schulz iterations in bfloat16.

    Arguments:
        matrix: Shape (m, n).
        steps: Iterations; five bring singular values into about [0.7, 1.2].
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.to(torch.bfloat16)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.T if tall else x).to(matrix.dtype)
