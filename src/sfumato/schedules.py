"""Schedules: how noise grows with time, t in [0, 1] -> Level, 0 the cleanest.

Time has no meaning of its own: two schedules that visit the same levels are the same process at another speed. A
schedule decides which levels uniform training visits and which levels a uniform grid samples. Scale has none either:
D(kx; k alpha, k sigma) = D(x; alpha, sigma), so a vp schedule and a ve schedule differ by a change of variables.

Discrete entries return a `Table` of T levels (rescaled with T so that every T ends at the same noise):

    linear      beta from 1e-4 to 0.02, times 1000 / T     DDPM
    quadratic   sqrt(beta) linear between the same ends    DDPM's ablation, DDIM
    constant    one beta                                   DDPM's ablation
    cosine      abar = f(t) / f(0), f = cos^2              iDDPM, eq. (17), beta clipped at 0.999
    sigmoid     abar falls like a sigmoid                  Jabri et al.
    betas       every beta by hand                         checkpoints of other projects

Continuous entries return a function:

    vp          ln alpha = -t^2 (bmax - bmin) / 4 - t bmin / 2,  alpha^2 + sigma^2 = 1     score SDE
    ve          alpha = 1, sigma geometric in t                                            score SDE
    edm         alpha = 1, sigma^(1/rho) linear in t                                       EDM, eq. (5)
    flow        alpha = 1 - t, sigma = t                                                   flow matching
    trig        log_snr = -2 ln tan(a t + b): the cosine schedule in continuous time       VDM, distillation

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020. https://arxiv.org/abs/2006.11239
    Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. 2021. https://arxiv.org/abs/2102.09672
    Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. 2021, appendix B.
    https://arxiv.org/abs/2011.13456
    Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. 2022.
    https://arxiv.org/abs/2206.00364
    Jabri, Fleet, Chen. Scalable Adaptive Computation for Iterative Generation. 2022. https://arxiv.org/abs/2212.11972
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.core.bounds import Few, Inside, Log, NotNegative, Nsr, Positive, Share, Steps, UpToOne, Warp, check_sigmas
from sfumato.core.level import Level, Schedule
from sfumato.core.table import Table


def _rescaled(steps: int, beta_min: float, beta_max: float) -> tuple[float, float]:
    """Return the ends of a beta range given for T = 1000, for T = steps."""
    _check_steps(steps)
    if not 0 < beta_min <= beta_max:
        raise ValueError(f"Betas must satisfy 0 < beta_min <= beta_max; got {beta_min} and {beta_max}.")
    return beta_min * 1000 / steps, beta_max * 1000 / steps


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"A table has at least one step; got steps = {steps}.")


def _places(steps: int) -> Tensor:
    """Return the times i / T, shape (T + 1,)."""
    _check_steps(steps)
    return torch.arange(steps + 1, dtype=torch.float64) / steps


def _from_abar(abar: Tensor, clip: float) -> Table:
    """Make a table from cumulative signal, (T + 1,), its betas clipped."""
    return Table.from_betas((1 - abar[1:] / abar[:-1]).clamp(max=clip))


def linear(steps: Steps = 1000, beta_min: Positive = 1e-4, beta_max: Positive = 0.02) -> Table:
    """DDPM's chain: beta rises linearly.

    Arguments:
        steps: Number T of steps of the chain.
        beta_min: First beta of a chain of 1000 steps; scaled by 1000 / T.
        beta_max: Last beta, likewise.

    Raises:
        ValueError: If a scaled beta leaves (0, 1), as happens for T <= 20.
    """
    low, high = _rescaled(steps, beta_min, beta_max)
    return Table.from_betas(torch.linspace(low, high, steps, dtype=torch.float64))


def quadratic(steps: Steps = 1000, beta_min: Positive = 1e-4, beta_max: Positive = 0.02) -> Table:
    """The square root of beta rises linearly.

    Arguments:
        steps: Number T of steps of the chain.
        beta_min: First beta of a chain of 1000 steps; scaled by 1000 / T.
        beta_max: Last beta, likewise.
    """
    low, high = _rescaled(steps, beta_min, beta_max)
    return Table.from_betas(torch.linspace(low**0.5, high**0.5, steps, dtype=torch.float64) ** 2)


def constant(steps: Steps = 1000, beta: Positive = 0.01) -> Table:
    """One beta for all steps; 0.01 (for T = 1000, scaled by 1000 / T) leaves as much signal at the end as `linear`.

    Arguments:
        steps: Number T of steps of the chain.
        beta: The beta of a chain of 1000 steps; scaled by 1000 / T.
    """
    low, _ = _rescaled(steps, beta, beta)
    return Table.from_betas(torch.full((steps,), low, dtype=torch.float64))


def cosine(steps: Steps = 1000, s: Share = 0.008, clip: Inside = 0.999) -> Table:
    """iDDPM's chain: abar follows a squared cosine.

    Arguments:
        steps: Number T of steps of the chain.
        s: Offset that keeps the first betas from vanishing.
        clip: Largest beta, against the singularity at t = 1. (Some implementations clip at 0.02, another process.)

    References:
        Nichol, Dhariwal. 2021, eq. (17).
    """
    t = _places(steps)
    return _from_abar(torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2, clip)


def sigmoid(steps: Steps = 1000, start: Log = -3.0, end: Log = 3.0, tau: Positive = 1.0, clip: Inside = 0.999) -> Table:
    """The signal falls like a sigmoid.

    Arguments:
        steps: Number T of steps of the chain.
        start: Argument of the sigmoid at t = 0.
        end: Argument of the sigmoid at t = 1.
        tau: Temperature, > 0: the argument is divided by it.
        clip: Largest beta; larger ones are lowered to it.

    References:
        Jabri, Fleet, Chen. 2022, appendix B.
    """
    t = _places(steps)
    falling = torch.sigmoid(-(start + t * (end - start)) / tau)
    return _from_abar((falling - falling[-1]) / (falling[0] - falling[-1]), clip)


def betas(values: tuple[UpToOne, ...] = ()) -> Table:
    """A chain whose betas are all named, as checkpoints of other projects bring it.

    Arguments:
        values: beta_1 .. beta_T, each in (0, 1); the last may be 1, which leaves no signal. () stands for `linear`.

    Raises:
        ValueError: If another beta leaves (0, 1).
    """
    if not values:
        return linear()
    if values[-1] != 1:
        return Table.from_betas(torch.tensor(values, dtype=torch.float64))
    levels = Table.from_betas(torch.tensor(values[:-1], dtype=torch.float64)).levels
    return Table(Level(torch.cat((levels.alpha, torch.zeros(1))), torch.cat((levels.sigma, torch.ones(1)))))


def vp(beta_min: NotNegative = 0.1, beta_max: Few = 20.0) -> Schedule:
    """The variance-preserving SDE, beta(t) linear from beta_min to beta_max: the limit of `linear` for many steps.

    Arguments:
        beta_min: beta(0): how fast noise is added at the clean end.
        beta_max: beta(1): how fast noise is added at the noisy end.
    """
    if not 0 <= beta_min < beta_max:
        raise ValueError(f"vp needs 0 <= beta_min < beta_max; got {beta_min} and {beta_max}.")

    def schedule(t: Tensor) -> Level:
        log_alpha = -(t**2) * (beta_max - beta_min) / 4 - t * beta_min / 2
        return Level(log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt())

    return schedule


def ve(sigma_min: Nsr = 0.02, sigma_max: Nsr = 100.0) -> Schedule:
    """The variance-exploding SDE: sigma grows geometrically from sigma_min (t = 0) to sigma_max (t = 1).

    Arguments:
        sigma_min: Sigma at t = 0, the cleanest level.
        sigma_max: Sigma at t = 1, the noisiest level.
    """
    check_sigmas(sigma_min, sigma_max)

    def schedule(t: Tensor) -> Level:
        return Level(torch.ones_like(t), sigma_min * (sigma_max / sigma_min) ** t)

    return schedule


def edm(sigma_min: Nsr = 0.002, sigma_max: Nsr = 80.0, rho: Warp = 7.0) -> Schedule:
    """EDM's warped range: sigma^(1/rho) grows linearly from sigma_min (t = 0) to sigma_max (t = 1).

    Arguments:
        sigma_min: Sigma at t = 0, the cleanest level.
        sigma_max: Sigma at t = 1, the noisiest level.
        rho: Larger puts more levels near sigma_min; 1 is uniform.
    """
    check_sigmas(sigma_min, sigma_max)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

    def schedule(t: Tensor) -> Level:
        return Level(torch.ones_like(t), (low + t * (high - low)) ** rho)

    return schedule


def flow() -> Schedule:
    """The straight line of flow matching, x = (1 - t) x0 + t n."""
    return lambda t: Level(1 - t, t)


def trig(log_snr_min: Log = -20.0, log_snr_max: Log = 20.0) -> Schedule:
    """The cosine schedule in continuous time, its log-SNR truncated to a range.

    Arguments:
        log_snr_min: ln (alpha^2 / sigma^2) at t = 1, the noisiest level.
        log_snr_max: The same at t = 0, the cleanest level.

    References:
        Salimans, Ho. Progressive Distillation for Fast Sampling of Diffusion Models. 2022.
        https://arxiv.org/abs/2202.00512
    """
    low, high = math.atan(math.exp(-log_snr_max / 2)), math.atan(math.exp(-log_snr_min / 2))

    def schedule(t: Tensor) -> Level:
        angle = low + t * (high - low)
        return Level(angle.cos(), angle.sin())

    return schedule
