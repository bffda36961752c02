"""Muon: step hidden weight matrices along their orthogonalised momentum.

A convolution is the matrix out x (in k k). With momentum M the update is

    O = NewtonSchulz(M) ~ U V^T of M's SVD,        W <- W (1 - lr wd) - lr sqrt(max(1, rows / columns)) O

where five quintic iterations X <- P X, P = a + b A + c A^2, A = X X^T, push every singular value towards 1. torch
ships a Muon for two-dimensional parameters only; the weights of a U-Net are convolutions.

P and A are as small as the shorter side of X, and commute. So several iterations in a row need X at their ends only:

    X <- P3 P2 P1 X,        A <- P A P after each

which is half the arithmetic for the kernel of a convolution, nine times as wide as high. In bfloat16 that A drifts
from the X X^T it stands for, so it is made anew after three of the five.

References:
    Jordan et al. Muon: An optimizer for hidden layers in neural networks. 2024. https://kellerjordan.github.io/posts/muon/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

EACH, FEWER = (1, 1, 1, 1, 1), (3, 2)  # iterations between which X is made


class Muon(Optimizer):
    """Step hidden matrices along their orthogonalised Nesterov momentum (see the module docstring).

    As in torch's fused optimisers, an attribute `found_inf` of 1.0, a tensor () on the parameters' device, makes a step
    leave weights and momentum as they are.

    Arguments:
        params: Weights of two or more dimensions; flattened to (out, everything else).
        lr: Step size; the update's singular values are near 1.
        momentum: Momentum of the exponential gradient average, in [0, 1).
        weight_decay: Decoupled decay per unit of lr.
        blocks: Iterations between which X is made; (1, 1, 1, 1, 1) for after each.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float, weight_decay: float, blocks: tuple[int, ...] = EACH
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.blocks = blocks

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step every weight that has a gradient, or none where `found_inf` is 1."""
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            grads = [p.grad for p in params if p.grad is not None]
            averages = [self.state[p]["momentum"] for p in params]
            if found_inf is not None:  # towards itself, an average stays where it is
                grads = [torch.where(found_inf > 0, a, g) for a, g in zip(averages, grads)]
            torch._foreach_lerp_(averages, grads, 1 - group["momentum"])
            updates = torch._foreach_lerp(grads, averages, group["momentum"])
            if group["weight_decay"]:
                decay = group["lr"] * group["weight_decay"]
                torch._foreach_mul_(params, 1 - (decay if found_inf is None else decay * (1 - found_inf)))
            for shape, alike in _by_shape(params).items():
                matrices = orthogonalise(torch.stack([_rows(updates[i]) for i in alike]), self.blocks)
                if found_inf is not None:
                    matrices = matrices * (1 - found_inf).to(matrices.dtype)
                rows, columns = shape[0], matrices.shape[-1]
                for i, matrix in zip(alike, matrices):
                    step = _unrows(matrix, params[i])
                    params[i].add_(step, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def _by_shape(params: list[Tensor]) -> dict[torch.Size, list[int]]:
    """Return the places of the parameters of each shape: one batched product serves them all."""
    places: dict[torch.Size, list[int]] = {}
    for i, p in enumerate(params):
        places.setdefault(p.shape, []).append(i)
    return places


def _rows(weight: Tensor) -> Tensor:
    """Return a weight as a matrix, out x rest, in half precision; the order of the rest is free: U V^T follows it."""
    half = weight.to(torch.bfloat16)  # keeps channels_last, of which the next line is a view
    return half.movedim(1, -1).reshape(len(weight), -1)


def _unrows(matrix: Tensor, like: Tensor) -> Tensor:
    """Undo `_rows`."""
    return matrix.reshape(like.movedim(1, -1).shape).movedim(-1, 1)


def orthogonalise(matrix: Tensor, blocks: tuple[int, ...] = EACH) -> Tensor:
    """Return an approximation of U V^T of the matrix's SVD by Newton-Schulz iterations in bfloat16.

    Arguments:
        matrix: One or a batch, shape (..., m, n).
        blocks: Iterations after which X is made, in order; five in all bring singular values into about [0.7, 1.2].
    """
    x = matrix.to(torch.bfloat16)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for count in blocks:
        gram = x @ x.mT
        polynomial = so_far = _polynomial(gram)
        for _ in range(count - 1):
            gram = polynomial @ (gram @ polynomial)
            polynomial = _polynomial(gram)
            so_far = polynomial @ so_far
        x = so_far @ x
    return (x.mT if tall else x).to(matrix.dtype)


def _polynomial(gram: Tensor) -> Tensor:
    a, b, c = 3.4445, -4.7750, 2.0315
    found = (gram @ gram).mul_(c).add_(gram, alpha=b)
    found.diagonal(dim1=-2, dim2=-1).add_(a)
    return found
