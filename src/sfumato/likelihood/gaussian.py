"""Gaussians in nats: divergences, densities, and the decoder that turns a density into the probability of a pixel code.

An image's codes 0..255 lie on [-1, 1] at ``c / 127.5 - 1``. The discretised Gaussian gives code x0 the mass of its bin

    P(x0) = Phi((x0 + 1/255 - mean) / s) - Phi((x0 - 1/255 - mean) / s),        s = exp(log_var / 2),

with open tails: the bin of code 0 reaches to -infinity and that of code 255 to +infinity, so the 256 masses sum to 1.

The difference of two nearly equal tails is taken in the log domain, ``ln P = ln Phi(b) + ln(1 - exp(ln Phi(a) - ln
Phi(b)))``, after reflecting the bin to the side where both are small: exact where the probability itself underflows.
The published codes approximate Phi by a tanh and clamp P at 1e-12; `discretised_tanh` is that formula, kept by name so
that their numbers can be reproduced.

A `Decoder` is any function (x0, mean, log_var) -> ln p(x0) per element; `DECODERS` names the three of this file.

References:
    Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, eq. (13). https://arxiv.org/abs/2006.11239
    Page. Approximations to the Cumulative Normal Function. 1977 (the tanh form). https://doi.org/10.2307/2346872
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Decoder = Callable[[Tensor, Tensor, Tensor], Tensor]

HALF_BIN = 1 / 255
EDGE = 0.999  # beyond it a value counts as code 0 or 255


def normal_kl(gap: Tensor, log_var_q: Tensor, log_var_p: Tensor) -> Tensor:
    """Return KL(N(m_q, var_q) || N(m_p, var_p)) per element, in nats.

    Arguments:
        gap: m_q - m_p, any shape.
        log_var_q: ln var_q, broadcastable.
        log_var_p: ln var_p, broadcastable.

    >>> normal_kl(torch.tensor(2.0), torch.tensor(0.0), torch.tensor(0.0))
    tensor(2.)
    """
    return 0.5 * (log_var_p - log_var_q + torch.expm1(log_var_q - log_var_p) + gap**2 * torch.exp(-log_var_p))


def density(x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Return ln N(x0; mean, var) per element: the decoder of continuous data, whose bits are differential."""
    return -0.5 * ((x0 - mean) ** 2 * torch.exp(-log_var) + log_var + math.log(2 * math.pi))


def discretised(x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Return ln P of the pixel codes under a Gaussian, exactly.

    Arguments:
        x0: Images on the 256 codes in [-1, 1], any shape.
        mean: Mean of the Gaussian, the shape of `x0`.
        log_var: ln var, broadcastable.

    Returns:
        Nats per element, the dtype of `mean`; computed in float64 where the device has it.

    References:
        Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. 2020, eq. (13). https://arxiv.org/abs/2006.11239
    """
    dtype = mean.dtype
    if mean.device.type != "mps":
        x0, mean, log_var = x0.double(), mean.double(), log_var.double()
    scale = torch.exp(-0.5 * log_var)
    low, high = (x0 - HALF_BIN - mean) * scale, (x0 + HALF_BIN - mean) * scale
    flip = low + high > 0  # the bin lies right of the mean: reflect it
    a, b = torch.where(flip, -high, low), torch.where(flip, -low, high)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    inner = log_b + torch.log(-torch.expm1(log_a - log_b))
    outer = torch.special.log_ndtr(torch.where(x0 > 0, -low, high))
    return torch.where(x0.abs() > EDGE, outer, inner).to(dtype)


def cdf_tanh(z: Tensor) -> Tensor:
    """Approximate the unit normal's distribution function by Page's tanh (error below 4e-4)."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def discretised_tanh(x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Return ln P of the pixel codes as the published codes compute it. Arguments as in `discretised`."""
    scale = torch.exp(-0.5 * log_var)
    low, high = cdf_tanh((x0 - HALF_BIN - mean) * scale), cdf_tanh((x0 + HALF_BIN - mean) * scale)
    mass = torch.where(x0 < -EDGE, high, torch.where(x0 > EDGE, 1 - low, high - low))
    return mass.clamp(min=1e-12).log()


DECODERS: dict[str, Decoder] = {"erf": discretised, "tanh": discretised_tanh, "density": density}
