"""What the network is asked to say: every parameterisation is one pair of coefficients.

The ideal raw output is ``F* = a x0 + b n``, with (a, b) a function of the level. Solving it together with
``x = alpha x0 + sigma n`` for x0 gives the denoiser

    D(x) = c_skip x + c_out F,    c_skip = -b / (a sigma - b alpha),    c_out = sigma / (a sigma - b alpha).

========== ================= ================= =======================================
target     a                 b                 known from
========== ================= ================= =======================================
x0         1                 0                 DDPM, section 3.2 (and its ablation)
eps        0                 1                 DDPM, eq. (14)
score      0                 -1                score SDE: sigma times the score of the noisy density
v          -sigma / h        alpha / h         Salimans and Ho 2022, h = hypot(alpha, sigma)
flow       -1                1                 flow matching: dx/dt of (1-t) x0 + t n
edm(sd)    r / (sd h)        -sd / h           EDM, eq. (7) and Table 1; h = hypot(r, sd), r = nsr
mu_tilde   k.x0 + k.xt alpha k.xt sigma        DDPM, eq. (7): the mean of q(x_s | x_t, x0)
========== ================= ================= =======================================

`v` equals ``-edm(1)``. Losses are computed in F-space (F against a x0 + b n with weight w c_out^2): exact
epsilon-MSE for DDPM and no cancellation at either end of the schedule.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020. https://arxiv.org/abs/2006.11239
    Salimans, Ho. Progressive Distillation for Fast Sampling of Diffusion Models. 2022. https://arxiv.org/abs/2202.00512
    Karras, Aittala, Aila, Laine. Elucidating the Design Space of Diffusion-Based Generative Models. 2022.
    https://arxiv.org/abs/2206.00364
    Lipman et al. Flow Matching for Generative Modeling. 2023. https://arxiv.org/abs/2210.02747
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, index_in

Target = Callable[[Level], tuple[Tensor, Tensor]]


def x0() -> Target:
    """The clean image itself: F* = x0."""
    return lambda level: (torch.ones_like(level.alpha), torch.zeros_like(level.alpha))


def eps() -> Target:
    """The unit noise: F* = n."""
    return lambda level: (torch.zeros_like(level.alpha), torch.ones_like(level.alpha))


def score() -> Target:
    """Sigma times the score of the noisy density: F* = -n (NCSN++ and the VE networks of score SDE)."""
    return lambda level: (torch.zeros_like(level.alpha), -torch.ones_like(level.alpha))


def v() -> Target:
    """The velocity on the circle: F* = (alpha n - sigma x0) / hypot(alpha, sigma)."""

    def coefficients(level: Level) -> tuple[Tensor, Tensor]:
        h = torch.hypot(level.alpha, level.sigma)
        return -level.sigma / h, level.alpha / h

    return coefficients


def flow() -> Target:
    """The velocity on the straight line: F* = n - x0."""
    return lambda level: (-torch.ones_like(level.alpha), torch.ones_like(level.alpha))


def edm(sigma_data: float = 0.5) -> Target:
    """The unit-variance mixture of x0 and n that EDM trains on.

    Arguments:
        sigma_data: Standard deviation of the data, > 0.

    Raises:
        ValueError: If `sigma_data` is not positive.
    """
    if not sigma_data > 0:
        raise ValueError(f"sigma_data must be positive; got {sigma_data}. Estimate it with `sfumato data`.")

    def coefficients(level: Level) -> tuple[Tensor, Tensor]:
        h = torch.hypot(level.sigma, sigma_data * level.alpha)  # alpha * hypot(r, sd), finite at alpha = 0
        return level.sigma / (sigma_data * h), -sigma_data * level.alpha / h

    return coefficients


def mu_tilde(table: Level) -> Target:
    """The mean of q(x_s | x_t, x0), with s the next cleaner entry of a table (DDPM's ablation only).

    Arguments:
        table: Levels of the discrete chain from clean to noisy, shape (T + 1,), entry 0 = (1, 0).

    Raises:
        ValueError: When called at a level that is not an entry 1..T of the table.
    """

    def coefficients(level: Level) -> tuple[Tensor, Tensor]:
        t = index_in(table, level)
        k = Kernel.between(table[t - 1], table[t])
        return k.x0 + k.xt * level.alpha, k.xt * level.sigma

    return coefficients
