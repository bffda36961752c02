"""Moment matching: the likelihood's width is the posterior covariance itself, so the update is Kalman's.

    x0 <- D(x) + C A^T (A C A^T + s^2 I)^-1 (y - A D(x)),    C = (sigma^2 / alpha) dD/dx = Cov[x0 | x]

If p(x0 | x) is Gaussian this is exactly E[x0 | x, y]. C is never written down: a product with it is one
vector-Jacobian product. The system is solved by conjugate residuals with full orthogonalisation (GCR), one product an
iteration: for a symmetric matrix it is the member of the family of conjugate gradients that minimises the residual.
It asks neither for symmetry nor for positive eigenvalues, which the Jacobian of a trained network does not have, and
its residual never grows.

Of an exact denoiser C has no negative eigenvalues, of a network it may have some close to 0, and then the system asks
for large steps in directions about which nothing is known. `damping` d puts C + d r2 I in place of C inside the
inverse, with PiGDM's r2, the variance of independent pixels.

References:
    Rozet, Andry, Lanusse, Louppe. Learning Diffusion Priors from Observations by Expectation Maximization. 2024,
    section 4.2 (moment matching). https://arxiv.org/abs/2405.13712
    Boys et al. Tweedie Moment Projected Diffusions for Inverse Problems. 2023. https://arxiv.org/abs/2310.06721
    Eisenstat, Elman, Schultz. Variational Iterative Methods for Nonsymmetric Systems of Linear Equations. 1983 (GCR).
    https://doi.org/10.1137/0720023
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.level import Level, like
from sfumato.core.task import Task, TaskError
from sfumato.methods._tweedie import check_linear, estimate, moved, prior_variance


def moment(
    denoiser: Denoiser, task: Task, y: Tensor, sigma_data: float = 0.5, iterations: int = 3, damping: float = 0.01
) -> Denoiser:
    """Update by the posterior covariance of the denoiser (moment matching), exact for Gaussians.

    Arguments:
        denoiser: Any denoiser that gradients pass through.
        task: A linear task.
        y: Measurements, shape (B, *task.measured).
        sigma_data: Standard deviation of clean pixels, for the damping and the bound on the shift.
        iterations: Steps of the solver, >= 1, each one vector-Jacobian product; exact with one a measurement.
        damping: Share of the variance of independent pixels that is added to C inside the inverse, >= 0.

    Raises:
        TaskError: For a nonlinear task, or options out of range.
    """
    check_linear("moment", task)
    if iterations < 1 or not damping >= 0:
        raise TaskError(f"moment needs iterations >= 1 and damping >= 0; got {iterations} and {damping}.")
    if task.blind:
        return denoiser

    def restored(x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        found = estimate(denoiser, x, level, label)
        variance = prior_variance(level, sigma_data)
        extra = like(damping * variance, y)

        def product(u: Tensor) -> tuple[Tensor, Tensor]:
            moves = found.covariance(task.transpose(u))
            return moves, task.apply(moves) + task.gram(u, lambda values: extra * values + task.noise**2)

        shift = conjugate_residuals(product, y - task.apply(found.prediction.x0), iterations)
        return moved("moment", found.prediction, shift, variance)

    return restored


def conjugate_residuals(product: Callable[[Tensor], tuple[Tensor, Tensor]], error: Tensor, iterations: int) -> Tensor:
    """Return B u for the u that makes |error - V u| smallest over a Krylov space, for each image of its own.

    Arguments:
        product: p -> (B p, V p), linear in p, image by image.
        error: Right side, shape (N, ...).
        iterations: Dimension of the space.

    Returns:
        The shape of B p. A direction in which V gives nothing new is left out, so there is no division by zero.
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).flatten(1).sum(1).reshape(-1, *(1,) * (a.ndim - 1))

    def wide(weights: Tensor, values: Tensor) -> Tensor:
        return weights.reshape(-1, *(1,) * (values.ndim - 1)) * values

    left, total = error, None
    directions: list[tuple[Tensor, Tensor]] = []  # (B p, V p) with the V p orthonormal
    for _ in range(iterations):
        moves, image = product(left)
        length = dot(image, image).sqrt()
        for earlier_moves, earlier in directions:
            along = dot(image, earlier)
            image, moves = image - along * earlier, moves - wide(along, earlier_moves)
        new = dot(image, image).sqrt()
        fresh = new > 1e3 * torch.finfo(new.dtype).eps * length
        inverse = torch.where(fresh, 1 / torch.where(fresh, new, 1.0), 0.0)
        image, moves = inverse * image, wide(inverse, moves)
        step = dot(left, image)
        left = left - step * image
        total = wide(step, moves) if total is None else total + wide(step, moves)
        directions.append((moves, image))
    assert total is not None
    return total
