"""DPS: follow the gradient of the squared error of the measurement, whatever the task.

    x0 <- D(x) + (sigma^2 / alpha) grad_x (-|y - A(D(x))|^2 / 2 v),    v = (r2 q + s^2) / weight

The likelihood is taken to be as wide in every direction. Chung et al. tune that width for each task. Here r2 is PiGDM's
variance of a pixel given x, and q = |A'^T e|^2 / |e|^2 says how much of it the operator passes on in the direction of
the error e = y - A(D(x)), so that weight 1 needs no tuning; and since it is a denoiser, it serves every sampler. Where
A A^T = q I it is `pigdm` itself. Only slopes of A are needed, so A need not be linear.

References:
    Chung et al. Diffusion Posterior Sampling for General Noisy Inverse Problems. 2023, algorithm 1.
    https://arxiv.org/abs/2209.14687
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.level import Level, like
from sfumato.core.task import Task, TaskError
from sfumato.methods._tweedie import estimate, moved, prior_variance


def dps(denoiser: Denoiser, task: Task, y: Tensor, sigma_data: float = 0.5, weight: float = 1.0) -> Denoiser:
    """Follow the gradient of the measurement's squared error (DPS); any task.

    Arguments:
        denoiser: Any denoiser that gradients pass through.
        task: Any task, linear or not.
        y: Measurements, shape (B, *task.measured).
        sigma_data: Standard deviation of clean pixels.
        weight: Strength of the measurement, > 0.

    Raises:
        TaskError: If the weight is not positive.
    """
    if not weight > 0:
        raise TaskError(f"The weight of dps is above 0; got {weight}.")
    if task.blind:
        return denoiser

    def square(u: Tensor) -> Tensor:
        return (u**2).flatten(1).sum(1).reshape(-1, *(1,) * (len(task.shape)))

    def restored(x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        found = estimate(denoiser, x, level, label)
        with torch.inference_mode(False), torch.enable_grad():
            x0 = found.prediction.x0.clone().requires_grad_()
            error = y.clone() - task.apply(x0)
            (slope,) = torch.autograd.grad(-0.5 * (error**2).sum(), x0)
        error = error.detach()
        passed = square(slope) / square(error).clamp(min=torch.finfo(x.dtype).tiny)
        variance = prior_variance(level, sigma_data)
        width = like(variance, x) * passed + task.noise**2
        pull = torch.where(width > 0, slope / width, 0.0)
        return moved("dps", found.prediction, weight * found.covariance(pull), variance)

    return restored
