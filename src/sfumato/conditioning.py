"""How a network is told its noise level: ``c_noise``, the one place beside schedules where a time survives.

Each entry makes a function level -> number, in the units its networks expect. Those that need a discrete chain take
its table (levels from clean to noisy, shape (T + 1,), entry 0 = (1, 0)).

================ ============================== ==============================================
entry            c_noise                        known from
================ ============================== ==============================================
quarter-log-nsr  ln(sigma / alpha) / 4          EDM, Table 1
log-nsr          scale ln(factor sigma / alpha) score SDE, VE: ln(sigma / 2) as EDM writes it
flow-time        scale sigma / (alpha + sigma)  flow matching: the t of (1 - t) x0 + t n
signal-share     alpha / (alpha + sigma)        JiT: time from noise to image
angle            scale (2 / pi) atan2           cosine schedules: bounded, symmetric in SNR
vp-time          scale t of the VP SDE          score SDE: 999 t, with ln alpha(t) known
index            scale i + offset, i in 1..T    DDPM (0..T-1), iDDPM (rescaled to 1000)
index-between    the same, i between two levels k-diffusion: a discrete model asked at any sigma
================ ============================== ==============================================

References:
    Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. 2022, Table 1.
    https://arxiv.org/abs/2206.00364
    Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. 2021. https://arxiv.org/abs/2102.09672
    Song et al. Score-Based Generative Modeling through Stochastic Differential Equations. 2021.
    https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.core.bounds import Few, Log, NotNegative, Nsr
from sfumato.core.level import Level, Schedule, index_in
from sfumato.core.table import Table

Conditioning = Callable[[Level], Tensor]


def quarter_log_nsr() -> Conditioning:
    """EDM's ln(sigma) / 4; needs alpha > 0."""
    return lambda level: level.nsr.log() / 4


def log_nsr(factor: Nsr = 1.0, scale: Nsr = 1.0) -> Conditioning:
    """The logarithm of the noise, scale * ln(factor * nsr); factor 0.5 is EDM's form of the VE network.

    Arguments:
        factor: What the ratio of noise to signal is multiplied by before the logarithm.
        scale: What the logarithm is multiplied by.
    """
    return lambda level: scale * (factor * level.nsr).log()


def flow_time(scale: Nsr = 1.0) -> Conditioning:
    """The time of flow matching, scale * sigma / (alpha + sigma), in [0, scale].

    Arguments:
        scale: Largest value that the network is told.
    """
    return lambda level: scale * level.sigma / (level.alpha + level.sigma)


def signal_share() -> Conditioning:
    """The share of signal, alpha / (alpha + sigma), in [0, 1]: JiT's time, 1 for a clean image."""
    return lambda level: level.alpha / (level.alpha + level.sigma)


def angle(scale: Nsr = 1.0) -> Conditioning:
    """The angle of the level on the circle, scale * (2 / pi) atan2(sigma, alpha), in [0, scale].

    Arguments:
        scale: Largest value that the network is told.
    """
    return lambda level: scale * (2 / math.pi) * torch.atan2(level.sigma, level.alpha)


def vp_time(beta_min: NotNegative = 0.1, beta_max: Few = 20.0, scale: Nsr = 999.0) -> Conditioning:
    """The time t of the VP SDE whose level this is, times `scale`: inverts ln alpha = -t^2 (bmax-bmin)/4 - t bmin/2.

    Arguments:
        beta_min: beta(0) of the SDE whose time is told.
        beta_max: beta(1) of that SDE.
        scale: What the time is multiplied by.
    """
    slope = beta_max - beta_min

    def c_noise(level: Level) -> Tensor:
        # ln alpha on the unit circle, from the nsr alone: alpha^2 = 1 / (1 + nsr^2)
        area = torch.log1p(level.nsr**2)  # = -2 ln alpha = t^2 slope / 2 + t beta_min
        return scale * 2 * area / (beta_min + (beta_min**2 + 2 * slope * area).sqrt())

    return c_noise


def index(table: Level, scale: Nsr = 1.0, offset: Log = -1.0) -> Conditioning:
    """The index i of the level in a discrete chain of T steps, scale * (i + offset); DDPM counts from 0.

    Arguments:
        table: Levels of the chain.
        scale: What the index is multiplied by.
        offset: What is added to the index before; -1 counts from 0.
    """
    return lambda level: scale * (index_in(table, level).to(torch.float64) + offset)


def index_between(schedule: Schedule, scale: Nsr = 1.0, offset: Log = -1.0) -> Conditioning:
    """The index of any level in a discrete chain, linear in ln(nsr) between two of its levels: scale * (i + offset).

    Arguments:
        schedule: Schedule whose levels are those of the chain.
        scale: What the index is multiplied by.
        offset: What is added to the index before; -1 counts from 0.
    """
    if not isinstance(schedule, Table):
        raise ValueError("index-between counts the levels of a discrete chain; use schedule=linear or another chain.")
    knots = schedule.levels[1:].nsr.log()

    def c_noise(level: Level) -> Tensor:
        at = level.nsr.log().clamp(knots[0], knots[-1]).contiguous()
        right = torch.searchsorted(knots, at).clamp(max=schedule.steps - 1).clamp(min=1 if schedule.steps > 1 else 0)
        share = (at - knots[right - 1]) / (knots[right] - knots[right - 1])
        return scale * (
            right + share.nan_to_num(1.0) + offset
        )  # not a number at the last level of a chain, if infinite

    return c_noise
