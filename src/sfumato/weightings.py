"""Weightings: how much an error at each level counts, as the weight w of ``|D(x) - x0|^2``.

Every entry returns a function (level, target) -> w, shape (B,). With the target's c_out the same loss reads

    w |D - x0|^2  =  w c_out^2 |F - (a x0 + b n)|^2,

and it is computed on the right, in F-space. The papers' losses, with snr = (alpha / sigma)^2:

    entry      w                                   the loss it is
    x0         1                                   plain error of the image
    simple     snr                                 plain error of the noise: DDPM's L_simple
    snr        max(snr + plus, floor)              plus 1: plain error of v; floor 1: truncated SNR
    flow       ((alpha + sigma) / sigma)^2         plain error of the straight-line velocity (bounded: JiT)
    native     1 / c_out^2                         plain error of whatever the network outputs
    edm        (nsr^2 + sd^2) / (nsr sd)^2         EDM: the effective weight of every level is 1 at initialisation
    min_snr    min(snr, gamma)                     Hang et al.
    p2         snr / (k + snr)^gamma               Choi et al.
    sigmoid    snr sigmoid(bias - log_snr)         Kingma and Gao; Hoogeboom et al.
    vlb        k.x0^2 / (2 var)                    one KL term of the variational bound, in nats

The level of infinite weight (clean, sigma = 0) is in no draw. At alpha = 0 an entry proportional to snr is 0: such a
level teaches nothing through the noise.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, eqs. (8), (12), (14).
    https://arxiv.org/abs/2006.11239
    Salimans, Ho. Progressive Distillation for Fast Sampling of Diffusion Models. 2022, section 4.
    https://arxiv.org/abs/2202.00512
    Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. 2022, Table 1.
    https://arxiv.org/abs/2206.00364
    Choi et al. Perception Prioritized Training of Diffusion Models. 2022, eq. (8). https://arxiv.org/abs/2204.00227
    Hang et al. Efficient Diffusion Training via Min-SNR Weighting Strategy. 2023. https://arxiv.org/abs/2303.09556
    Kingma, Gao. Understanding Diffusion Objectives as the ELBO with Simple Data Augmentation. 2023.
    https://arxiv.org/abs/2303.00848
    Hoogeboom et al. Simpler Diffusion. 2024, section 3.2. https://arxiv.org/abs/2410.19324
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.core.bounds import Log, NotNegative, Positive
from sfumato.core.denoiser import skip_and_out
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, index_in
from sfumato.core.target import Target

Weighting = Callable[[Level, Target], Tensor]


def _snr(level: Level) -> Tensor:
    return (level.alpha / level.sigma) ** 2


def x0() -> Weighting:
    """Count errors of the clean image equally at every level: w = 1."""
    return lambda level, target: torch.ones_like(level.alpha)


def simple() -> Weighting:
    """Count errors of the predicted noise equally at every level: w = snr, DDPM's L_simple."""
    return lambda level, target: _snr(level)


def snr(plus: NotNegative = 0.0, floor: NotNegative = 0.0) -> Weighting:
    """Weight by the signal-to-noise ratio, w = max(snr + plus, floor).

    Arguments:
        plus: 1 counts errors of v equally at every level.
        floor: 1 is the truncated SNR of progressive distillation.
    """
    return lambda level, target: (_snr(level) + plus).clamp(min=floor)


def flow(least: NotNegative = 0.0) -> Weighting:
    """Count errors of the straight-line velocity n - x0 equally at every level.

    Arguments:
        least: The share of noise, sigma / (alpha + sigma), counts as at least this, which bounds the weight of nearly
            clean levels by 1 / least^2; in [0, 1).
    """
    if not 0 <= least < 1:
        raise ValueError(f"least is a share of noise in [0, 1); got {least}.")
    most = 1 / least if least else math.inf
    return lambda level, target: ((level.alpha + level.sigma) / level.sigma).clamp(max=most) ** 2


def native() -> Weighting:
    """Count errors of the network's own output equally at every level: w = 1 / c_out^2."""
    return lambda level, target: 1 / skip_and_out(target, level)[1] ** 2


def edm(sigma_data: float = 0.5) -> Weighting:
    """EDM's weight, (nsr^2 + sd^2) / (nsr sd)^2, which equals `native` for the target edm(sd).

    Arguments:
        sigma_data: Standard deviation of the data, > 0.
    """
    _check_positive("sigma_data", sigma_data)
    return lambda level, target: _snr(level) + sigma_data**-2


def min_snr(gamma: Positive = 5.0) -> Weighting:
    """Weight by the SNR, but never more than gamma, so that nearly clean levels do not dominate.

    Arguments:
        gamma: Largest weight, > 0.
    """
    _check_positive("gamma", gamma)
    return lambda level, target: _snr(level).clamp(max=gamma)


def p2(gamma: NotNegative = 1.0, k: Positive = 1.0) -> Weighting:
    """Weigh down the nearly clean levels, whose detail is imperceptible: snr / (k + snr)^gamma.

    Arguments:
        gamma: Strength; 0 is `simple`.
        k: Where it sets in, > 0.
    """
    _check_positive("k", k)
    return lambda level, target: _snr(level) / (k + _snr(level)) ** gamma


def sigmoid(bias: Log = 0.0) -> Weighting:
    """Weigh the noise error by sigmoid(bias - log_snr): w = e^bias sigmoid(log_snr - bias).

    Arguments:
        bias: The log-SNR at which the weight of the noise error is one half; published values are 1 to 3, less for
            larger images.
    """
    return lambda level, target: math.exp(bias) * torch.sigmoid(level.log_snr - bias)


def vlb(table: Level) -> Weighting:
    """Weigh by the exact factor of one KL term of the variational bound, in nats.

    For the step t -> s of the chain the term is |mu~ - mu|^2 / (2 var) = k.x0^2 / (2 var) |D - x0|^2, which equals
    (snr_s - snr_t) / 2 |D - x0|^2; at the last step, where the posterior variance is 0, the variance is that of the
    step before. The sum over the T entries is the bound; the mean over a uniform draw is 1/T of it.

    Arguments:
        table: From clean to noisy, shape (T + 1,).

    Raises:
        ValueError: When called at a level that is not an entry 1..T of the table.
    """
    k = Kernel.chain(table[torch.arange(len(table) - 1, -1, -1)])
    weights = (k.x0**2 / 2 * (-k.log_var_small).exp()).flip(0)
    return lambda level, target: weights[index_in(table, level) - 1]


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive; got {value}.")
