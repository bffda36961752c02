"""Replacement: overwrite what is seen, whenever its own noise is below that of the walk.

    x0 <- A+ y + (I - A+ A) D(x)

With noise, a singular direction of A is overwritten while sigma / alpha >= s / sqrt(l), with l its eigenvalue of A A^T,
and left to the denoiser after that.

Song et al. overwrite the noisy picture, ``x <- alpha y + sigma n`` where it is seen. A sampler that is given x0 = y
there makes that noisy picture itself, so the two are one walk. For a mask without noise this is `ddnm` too. What
RePaint adds is going back up and down again, so that the hidden part can agree with the seen one: a sampler's affair,
`restoration.resampled`.

References:
    Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. 2021, appendix I.2.
    https://arxiv.org/abs/2011.13456
    Lugmayr et al. RePaint: Inpainting using Denoising Diffusion Probabilistic Models. 2022, algorithm 1.
    https://arxiv.org/abs/2201.09865
"""

from __future__ import annotations

from torch import Tensor

from sfumato.core.denoiser import Denoiser
from sfumato.core.task import Task
from sfumato.methods._projection import projected


def replacement(denoiser: Denoiser, task: Task, y: Tensor) -> Denoiser:
    """Overwrite what is seen (RePaint's step; resample to let the rest agree).

    Arguments:
        denoiser: The estimate of x0 given x alone.
        task: A linear task.
        y: Measurements, shape (B, *task.measured).

    Raises:
        TaskError: For a nonlinear task.
    """
    return projected("replacement", denoiser, task, y, lambda ratio: (ratio >= 1).to(ratio))
