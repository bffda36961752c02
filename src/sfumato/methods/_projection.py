"""Move the seen part of x0 to the measurement, direction by direction of the operator."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.level import Level, like
from sfumato.core.task import Task
from sfumato.methods._tweedie import check_linear


def projected(method: str, denoiser: Denoiser, task: Task, y: Tensor, share: Callable[[Tensor], Tensor]) -> Denoiser:
    """Return the denoiser of ``D(x) + A+ Lambda (y - A D(x))``; without noise Lambda = 1.

    Arguments:
        method: Name of the method, for messages.
        denoiser: The estimate of x0 given x alone.
        task: A linear task.
        y: Measurements, shape (B, *task.measured).
        share: Noise in x over the noise that the measurement brings, r sqrt(l) / s, per direction -> Lambda.

    Raises:
        TaskError: For a nonlinear task.
    """
    check_linear(method, task)
    if task.blind:
        return denoiser
    explained = task.pinv(y)

    def restored(x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        prediction = denoiser(x, level, label)
        x0 = prediction.x0
        if task.noise == 0:  # in this order: where A+ A = I the difference is 0 to the last bit
            return Prediction(explained + (x0 - task.seen(x0)), prediction.v)
        ratio = like(level.nsr, y) / task.noise
        return Prediction(x0 + task.pinv(y - task.apply(x0), lambda l: share(ratio * l.sqrt())), prediction.v)

    return restored
