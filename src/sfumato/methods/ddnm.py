"""DDNM: keep what the measurement says, and take from the denoiser what it does not say.

    x0 <- A+ y + (I - A+ A) D(x)

A measurement with noise would be kept with its noise. So each singular direction of A moves only so far that the noise
it brings, s / sqrt(l) for the eigenvalue l of A A^T, is not above the noise in x, r = sigma / alpha,

    x0 <- D(x) + A+ Lambda (y - A D(x)),    Lambda = min(1, r sqrt(l) / s)

It needs no gradient, and it is biased: of p(x0 | x, y) it fixes the seen part and does not tell the rest of it.

References:
    Wang, Yu, Zhang. Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model. 2023, eqs. (13) and (17).
    https://arxiv.org/abs/2212.00490
"""

from __future__ import annotations

from torch import Tensor

from sfumato.core.denoiser import Denoiser
from sfumato.core.task import Task
from sfumato.methods._projection import projected


def ddnm(denoiser: Denoiser, task: Task, y: Tensor) -> Denoiser:
    """Replace the part of x0 that is seen by the measurement (DDNM; its noisy form if the task has noise).

    Arguments:
        denoiser: The estimate of x0 given x alone.
        task: A linear task.
        y: Measurements, shape (B, *task.measured).

    Raises:
        TaskError: For a nonlinear task.
    """
    return projected("ddnm", denoiser, task, y, lambda ratio: ratio.clamp(max=1))
