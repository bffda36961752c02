"""Predictor-corrector: before each ancestral step, a step of Langevin dynamics at the level where the image is.

With the score g = (alpha D(x) - x) / sigma^2 and unit normal z, the corrector moves

    x' = x + e g + sqrt(2 e) z,    e = 2 (snr |z| / |g|)^2,

towards the distribution at that level without changing the level, so errors of earlier steps are forgotten. The
predictor is `ancestral` with the large variance, score SDE's reverse-diffusion step. The published size of a correction
takes norms averaged over the batch; here each image has its own, so that no image depends on its batch. Corrections do
not shrink with the grid's steps, so there is no order. Published VE results: 1000 steps, one correction each, 0.16.

References:
    Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. 2021, algorithms 2 and 4.
    https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from sfumato.core.bounds import Depth, Few, NotNegative
from sfumato.core.condition import Label
from sfumato.core.denoiser import Denoiser, State, clipped
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, like
from sfumato.core.noise import Noise, drawn

ORDER = None


def predictor_corrector(
    denoiser: Denoiser,
    x: Tensor,
    grid: Level,
    *,
    noise: Noise | None = None,
    label: Label | None = None,
    snr: Few = 0.16,
    corrections: Depth = 1,
    clip: bool | NotNegative = False,
) -> Iterator[State]:
    """Correct by Langevin dynamics, then take an ancestral step (score SDE); 1 + corrections calls per step.

    Arguments:
        denoiser: The model, any denoiser.
        x: Start at grid[0], shape (B, ...).
        grid: Levels from noisy to clean, shape (N + 1,).
        noise: step -> unit normal noise of x's shape; correction k of step i has the number (k + 1) (N + 1) + i.
        label: Class of each image, int64 (B,); None for none.
        snr: Size of a correction: its noise over its drift; 0.16 for VE on CIFAR-10, 0.01 for VP.
        corrections: Per step, >= 0; none is `ancestral`.
        clip: Clip x0 to [-1, 1] (True) or [-clip, clip].

    Yields:
        The state after every step.

    Raises:
        ValueError: If `snr` or `corrections` is negative.
    """
    if snr < 0 or corrections < 0:
        raise ValueError(f"snr and corrections are >= 0; got {snr} and {corrections}.")
    chain = Kernel.chain(grid)
    for i in range(len(grid) - 1):
        t, s = grid[i], grid[i + 1]
        for k in range(corrections):
            x = _correct(x, clipped(denoiser(x, t, label).x0, clip), t, drawn(noise, (k + 1) * len(grid) + i), snr)
        x0 = clipped(denoiser(x, t, label).x0, clip)
        step = chain[i]
        x = like(step.x0, x) * x0 + like(step.xt, x) * x
        if s.sigma > 0:
            x = x + like((step.log_var_large / 2).exp(), x) * drawn(noise, i)
        yield State(x, s, x0)


def _correct(x: Tensor, x0: Tensor, t: Level, z: Tensor, snr: float) -> Tensor:
    """Return x after one step of Langevin dynamics at level t."""
    score = (like(t.alpha, x) * x0 - x) / like(t.sigma**2, x)
    ratio = _norm(z) / _norm(score).clamp(min=1e-12)
    size = 2 * (snr * ratio) ** 2
    return x + size * score + (2 * size).sqrt() * z


def _norm(x: Tensor) -> Tensor:
    """Return the Euclidean norm of each image, shape (B, 1, ..., 1)."""
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
