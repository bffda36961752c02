"""PiGDM: the gradient of a likelihood whose width allows for what x does not say about x0.

    x0 <- D(x) + C A^T V^-1 (y - A D(x)),    V = r2 A A^T + s^2 I,    r2 = r^2 sd^2 / (r^2 + sd^2)

r2 is the variance of a pixel given x, were the pixels independent with standard deviation sd. V is inverted in closed
form in the task's spectrum, and one vector-Jacobian product a call gives the gradient.

References:
    Song, Vahdat, Mardani, Kautz. Pseudoinverse-Guided Diffusion Models for Inverse Problems. 2023.
    https://openreview.net/forum?id=9_gsMA8MRKQ
"""

from __future__ import annotations

from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.level import Level, like
from sfumato.core.task import Task
from sfumato.methods._tweedie import check_linear, estimate, moved, prior_variance


def pigdm(denoiser: Denoiser, task: Task, y: Tensor, sigma_data: float = 0.5) -> Denoiser:
    """Follow the likelihood of a measurement, as wide as independent pixels leave it (PiGDM).

    Arguments:
        denoiser: Any denoiser that gradients pass through.
        task: A linear task.
        y: Measurements, shape (B, *task.measured).
        sigma_data: Standard deviation of clean pixels.

    Raises:
        TaskError: For a nonlinear task.
    """
    check_linear("pigdm", task)
    if task.blind:
        return denoiser

    def restored(x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        found = estimate(denoiser, x, level, label)
        variance = prior_variance(level, sigma_data)
        r2 = like(variance, y)
        error = y - task.apply(found.prediction.x0)
        # A^T V^-1 = A+ (l / (r2 l + s^2)), which leaves out the directions that A does not see
        pull = task.pinv(error, lambda values: values / (r2 * values + task.noise**2))
        return moved("pigdm", found.prediction, found.covariance(pull), variance)

    return restored
