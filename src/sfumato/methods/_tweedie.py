"""What the methods share: the posterior covariance by vector-Jacobian products, and a look at every answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.images import NonFiniteError, finite
from sfumato.core.level import Level, like
from sfumato.core.task import Task, TaskError

FURTHEST = 3.0  # standard deviations that a measurement may move an estimate


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What a denoiser says at x, and how its answer moves with x.

    Attributes:
        prediction: D(x), without gradient.
        covariance: u -> C u with C = (sigma^2 / alpha) (dD/dx)^T, one vector-Jacobian product a call. For the exact
            posterior mean C is Cov[x0 | x]; of a network it is an estimate, and need not be symmetric. It is 0 where
            alpha = 0, since x then says nothing of x0.
    """

    prediction: Prediction
    covariance: Callable[[Tensor], Tensor]


def estimate(denoiser: Denoiser, x: Tensor, level: Level, label: Label | None) -> Estimate:
    """Ask a denoiser once, keeping what gradients need.

    Arguments:
        denoiser: Any denoiser that gradients pass through.
        x: Noisy images, shape (B, ...).
        level: Shape () or (B,).
        label: int64 (B,) or None.
    """
    with torch.inference_mode(False), torch.enable_grad():
        at = x.detach().clone().requires_grad_()
        prediction = denoiser(at, level, label)
    scale = torch.where(level.alpha > 0, level.sigma**2 / level.alpha, 0.0)

    def covariance(u: Tensor) -> Tensor:
        (back,) = torch.autograd.grad(prediction.x0, at, u, retain_graph=True)
        return like(scale, back) * back

    return Estimate(
        Prediction(prediction.x0.detach(), None if prediction.v is None else prediction.v.detach()), covariance
    )


def prior_variance(level: Level, sigma_data: float) -> Tensor:
    """Return Var[x0 | x] of one pixel if x0 ~ N(0, sigma_data^2): r^2 sd^2 / (r^2 + sd^2) with r = sigma / alpha.

    >>> float(prior_variance(Level.of(1.0, 0.5), 0.5))
    0.125
    """
    variance = sigma_data**2
    return level.sigma**2 * variance / (level.sigma**2 + level.alpha**2 * variance)


def moved(method: str, prediction: Prediction, shift: Tensor, variance: Tensor) -> Prediction:
    """Return the prediction with its x0 moved no further than can be believed, or say that it is no longer a number.

    A measurement moves E[x0 | x] by a vector of mean square at most tr Cov[x0 | x], and that is at most d r2 for d
    pixels of mean variance sd^2, whatever their correlations. So a shift beyond `FURTHEST` sqrt(d r2), as the slope of
    a trained network may give, is shortened to that length.

    Arguments:
        method: For the message.
        prediction: What the denoiser says of x alone.
        shift: What the method adds, shape of x0.
        variance: r2 of `prior_variance`, shape () or (B,).

    Raises:
        NonFiniteError: If any image holds NaN or infinity; the message says what to do.
    """
    flat = shift.flatten(1)
    most = FURTHEST * (variance.to(flat) * flat.shape[1]).sqrt()
    shorter = (most / flat.norm(dim=1).clamp(min=torch.finfo(flat.dtype).tiny)).clamp(max=1)
    x0 = prediction.x0 + shift * shorter.reshape(-1, *(1,) * (shift.ndim - 1))
    good = finite(x0)
    if not bool(good.all()):
        raise NonFiniteError(
            f"The method {method} gave NaN or infinity for {int((~good).sum())} of {len(x0)} pictures. Use more steps, "
            "more `damping` or fewer `iterations` (moment), a smaller `weight` (dps), or a method without gradients "
            "(ddnm)."
        )
    return Prediction(x0, prediction.v)


def check_linear(method: str, task: Task) -> None:
    """Refuse a task that is not linear.

    Raises:
        TaskError: With the method that can take it.
    """
    if not task.linear:
        raise TaskError(f"The method {method} needs a linear task, and {task.name} is not one. Use method dps.")
