"""What a latent costs under a learned prior: the cross entropy of a denoiser, as a correction to that of N(0, I).

Let z be a latent of d numbers and D a denoiser. With the signal-to-noise ratio g = (alpha / sigma)^2, the bound of
variational diffusion in continuous time between g_far (noisy) and g_near (clean) is

    -ln p(z)  <=  L_T + 1/2 int E_n |z - D(x_g)|^2 dg + d/2 ln(2 pi e / g_near),    x_g = alpha z + sigma n

where L_T is the KL to N(0, (1 + g_far) I) of sqrt(g_far) z + n. For the prior N(0, I) the denoiser is known,
D_N(x) = alpha x / (alpha^2 + sigma^2), and so is every term. Take its bound away and add its closed form:

    -ln p(z)  <=  |z|^2 / 2 + d/2 ln 2 pi  +  1/2 int G(g) dg  +  rest
    G(g)       =  E_n [ |z - D(x_g)|^2 - |z - D_N(x_g)|^2 ]
    rest       =  d/2 ln(1 + 1 / g_near) - (|z|^2 - d) / (2 (1 + g_near))

The first two terms are the plain VAE's. The integral is what the learned prior saves, and it is estimated with the same
noise for both denoisers: where D = D_N it is exactly 0, not 0 on average. A network that starts at zero behind the
target of EDM with sigma_data = 1, or behind v, starts as D_N, so a joint model starts as a plain VAE without any noise
in its prior's term. `rest` is the price of stopping at g_near; at sigma = alpha / 100 it is below 1e-4 d nats.

With u = ln g, dg = g du: one level drawn evenly in u over a range R estimates the integral by R g G / 2.

References:
    Vahdat, Kreis, Kautz. Score-based Generative Modeling in Latent Space. 2021, theorem 1 and section 3.2 (the standard
    normal as the base of the prior). https://arxiv.org/abs/2106.05931
    Kingma, Salimans, Poole, Ho. Variational Diffusion Models. 2021, eqs. (12)-(17). https://arxiv.org/abs/2107.00630
    Guo, Shamai, Verdu. Mutual Information and Minimum Mean-Square Error in Gaussian Channels. 2005 (the same integral
    for the true denoiser). https://arxiv.org/abs/cs/0412108
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.core.denoiser import Preconditioned, skip_and_out
from sfumato.core.level import Level, like
from sfumato.latent.autoencoder import LOG_2PI


def standard_normal(z: Tensor) -> Tensor:
    """Return -ln N(z; 0, I) in nats, shape (B,)."""
    return 0.5 * (z.square() + LOG_2PI).flatten(1).sum(1)


def rest(z: Tensor, near: float) -> Tensor:
    """Return what the bound of N(0, I) that stops at sigma / alpha = `near` exceeds its own cross entropy by, (B,)."""
    snr, power, numbers = near**-2, z.square().flatten(1).sum(1), z[0].numel()
    return 0.5 * numbers * math.log1p(1 / snr) - 0.5 * (power - numbers) / (1 + snr)


def levels_of(u: Tensor, near: float, far: float) -> Level:
    """Return the levels of the unit circle that lie at shares u of the way from `far` to `near`, even in ln SNR.

    Arguments:
        u: In [0, 1], float64, shape (B,).
        near, far: sigma / alpha at either end.
    """
    nsr = torch.exp(math.log(far) + u * (math.log(near) - math.log(far)))
    radius = torch.hypot(torch.ones_like(nsr), nsr)
    return Level(1 / radius, nsr / radius)


def saving(denoiser: Preconditioned, z: Tensor, n: Tensor, level: Level, label: Tensor | None = None) -> Tensor:
    """Return g G / 2 per image at one level each: the integrand of the prior's correction, in nats per unit of ln SNR.

    Arguments:
        denoiser: The prior, as a denoiser of latents.
        z: Clean latents, shape (B, c, h, w).
        n: Unit normal noise, the same shape.
        level: Levels of the noisy latents, shape (B,).
        label: int64 (B,) or None.

    Returns:
        Shape (B,), differentiable; negative where the prior knows more than N(0, I). Both squared errors share their
        noise, and their difference is taken as a product, so nothing cancels near the clean end.
    """
    x = level.noisy(z, n)
    f, _ = denoiser.raw(x, level, label)
    c_skip, c_out = skip_and_out(denoiser.target, level)
    total = level.alpha**2 + level.sigma**2
    apart = like(c_skip - level.alpha / total, x) * x + like(c_out, x) * f  # D - D_N
    # z - D_N = (sigma^2 z - alpha sigma n) / (alpha^2 + sigma^2)
    missed = like(level.sigma**2 / total, x) * z - like(level.alpha * level.sigma / total, x) * n
    gained = (apart * (apart - 2 * missed)).flatten(1).sum(1)
    return 0.5 * like(level.nsr**-2, gained) * gained


def cross_entropy(
    denoiser: Preconditioned, z: Tensor, n: Tensor, u: Tensor, *, near: float, far: float, label: Tensor | None = None
) -> tuple[Tensor, Level]:
    """Return an estimate of the bound on -ln p(z) per image, from one level each.

    Arguments:
        denoiser: The prior, as a denoiser of latents.
        z: Latents, shape (B, c, h, w).
        n: Unit normal noise, the same shape.
        u: Where between `far` and `near` each level lies, in [0, 1], float64, shape (B,).
        near, far: sigma / alpha at either end of the bound.
        label: int64 (B,) or None.

    Returns:
        Nats, shape (B,), differentiable, and the levels. Its mean over even u is the bound.
    """
    level = levels_of(u, near, far)
    span = 2 * (math.log(far) - math.log(near))
    return standard_normal(z) + span * saving(denoiser, z, n, level, label) + rest(z, near), level
